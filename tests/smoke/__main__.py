"""Installs the wheel of build/dist in an empty environment and runs its commands: `python tests/smoke --extras all`.

It needs only the standard library, so any Python from 3.10 on runs it, and the environment is one of that Python.
"""

from __future__ import annotations

import argparse
import email
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,]+\])?>=(?P<lowest>[\w.]+)")
# OpenCV's distributions with a window system; they and the headless one overwrite each other's files.
WINDOWED = ("opencv-python", "opencv-contrib-python")
CORE = (
    "data generate shapes 32 64",
    "data check shapes/data.yaml",
    "train --cfg yolov5n --data shapes/data.yaml --img 64 --epochs 1 --workers 0 --name dense",
    "info runs/train/dense/weights/best.safetensors",
    "prune --weights runs/train/dense/weights/best.safetensors --data shapes/data.yaml --params 0.7 --criterion l2",
    "val --weights runs/prune/exp/pruned.safetensors --data shapes/data.yaml --workers 0",
)


def lowest(wheel: Path, names: Sequence[str]) -> list[str]:
    """Constraints that hold packages to the lower bounds of a wheel's metadata.

    Args:
        names: packages; "all" means every package for which the wheel states a lower bound.
    """
    with zipfile.ZipFile(wheel) as archive:
        [file] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = email.message_from_bytes(archive.read(file)).get_all("Requires-Dist") or []
    bounds = {match["name"]: match["lowest"] for line in lines if (match := REQUIREMENT.match(line))}
    chosen = bounds if "all" in names else {name: bounds[name] for name in names}
    return [f"{name}=={bound}" for name, bound in chosen.items()]


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Standard output of a command that must end well, in a folder of its own and without the checkout's path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    print("$", shlex.join(map(str, command)), flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}\nexit code {done.returncode}")
    return done.stdout


def install(wheel: Path, extras: str, held: Sequence[str], folder: Path) -> tuple[Path, float]:
    """An environment with the wheel in it, and the seconds that its packages took."""
    place = folder / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in held))
    start = time.monotonic()
    wanted = f"{wheel}[{extras}]" if extras else str(wheel)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--constraint", constraints, wanted], folder)
    return python, time.monotonic() - start


def main() -> None:
    """Ends with a line of what was measured; exit code 1 where a command fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="", help="extras to install, with commas")
    parser.add_argument("--lowest", nargs="*", default=[], help="packages to hold to their lower bound, or all")
    parser.add_argument("--demo", help="run the demo with these options, instead of the commands of the core")
    options = parser.parse_args()
    wheels = sorted((BUILD / "dist").glob("secateur-*.whl"))
    if len(wheels) != 1:
        raise SystemExit("build/dist must hold one wheel; run make dist")
    with tempfile.TemporaryDirectory(dir=BUILD) as temporary:
        folder = Path(temporary)
        python, seconds = install(wheels[0], options.extras, lowest(wheels[0], options.lowest), folder)
        secateur = python.with_name("secateur")
        version = run([secateur, "--version"], folder).split()[-1]
        assert f"-{version}-" in wheels[0].name, f"{wheels[0].name} reports the version {version}"
        installed = run([python, "-m", "pip", "list", "--format", "freeze"], folder).splitlines()
        versions = dict(line.split("==") for line in installed if "==" in line)
        wrong = [name for name in WINDOWED if name in versions]
        assert not wrong, f"the install brings {', '.join(wrong)}, which needs the libraries of a screen"
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        start = time.monotonic()
        for command in CORE if options.demo is None else [f"demo {options.demo}"]:
            run([secateur, *shlex.split(command)], folder)
        ran = time.monotonic() - start
        shutil.rmtree(folder / "environment")
    print(
        f"ok: Python {platform.python_version()}, torch {versions['torch']}, {len(versions)} packages, "
        f"{size / 1e6:,.0f} MB, installed in {seconds:.0f} s, commands ran in {ran:.0f} s "
        f"({'demo' if options.demo is not None else 'core'})"
    )


if __name__ == "__main__":
    sys.exit(main())
