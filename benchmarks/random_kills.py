"""Kills `secateur run` at random times and resumes it: are tables and tensors identical?

    python benchmarks/random_kills.py --weights best.pt --data data.yaml [--recipe quick] [--workers 2] [--kills 20]
        [--within 1.0] [--seed 0] [--project FOLDER] [--json out.json] [-- --flops 0.6 --img 320 ...]

The first run is not killed. The others are killed (SIGKILL, to all processes of the run) after times drawn uniformly
from zero to `--within` of its length, and restarted by the same command until they end. New runs start until enough
kills have happened. The smaller `--within`, the more kills per run. Every table, without its times, and every tensor of
every checkpoint is compared bit for bit with the first run's. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors import safe_open


def main() -> None:
    """Prints one row per run, and writes them as JSON."""
    options = _options()
    project = options.project or Path(tempfile.mkdtemp(prefix="random-kills-"))
    start = time.monotonic()
    calm = _Run(options, project / "calm")
    if not calm.ended_within(None):
        raise SystemExit(f"The run without kills failed; see {calm.log}.")
    length = time.monotonic() - start
    print(f"{project}: {length:.0f} s without kills, {len(_tensors(calm.folder))} tensors")
    rng, rows, kills = random.Random(options.seed), [], 0
    while kills < options.kills:
        times: list[float] = []
        run = _Run(options, project / f"killed-{len(rows) + 1}")
        while True:
            delay = rng.uniform(0, options.within * length) if kills < options.kills else None
            if run.ended_within(delay):
                break
            assert delay is not None
            times.append(delay)
            kills += 1
        row = {"run": run.project.name, "kills": len(times), "after": times, **_compared(calm.folder, run.folder)}
        rows.append(row)
        print(
            f"{row['run']:<12} {row['kills']:>3} kills   tables {row['table']}, tensors {row['tensors']}, "
            f"hidden files left {row['left']}"
        )
    same = all(row["table"] == row["tensors"] == "same" for row in rows)
    print(f"{kills} kills in {len(rows)} runs: {'all the same' if same else 'NOT THE SAME'}")
    if options.json:
        result = {"recipe": options.recipe, "workers": options.workers, "seconds": length, "kills": kills, "runs": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    raise SystemExit(not same)


class _Run:
    """One run of the recipe, started and resumed by the same command."""

    def __init__(self, options: argparse.Namespace, project: Path) -> None:
        self.project, self.log = project, project.with_suffix(".log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.words = [sys.executable, "-m", "secateur", "run", "--recipe", options.recipe, "--weights"]
        self.words += [options.weights, "--data", options.data, "--workers", str(options.workers)]
        self.words += ["--project", str(project), *options.rest]

    @property
    def folder(self) -> Path:
        """The only folder of the run, in which all its restarts must have resumed."""
        folders = sorted(path for path in self.project.iterdir() if path.is_dir())
        if len(folders) != 1:
            raise SystemExit(
                f"{self.project} has {len(folders)} run folders: the run did not resume in its own folder."
            )
        return folders[0]

    def ended_within(self, seconds: float | None) -> bool:
        """Starts the command. True if it ended by itself, False if it was killed after `seconds`."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(self.words, stdout=log, stderr=log, start_new_session=True)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return False
        if code:
            raise SystemExit(f"The command failed with exit code {code}; see {self.log}.")
        return True


def _compared(calm: Path, other: Path) -> dict[str, Any]:
    mine, theirs = _tensors(calm), _tensors(other)
    differ = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    tables = [_table(calm), _table(other)]
    left = sum(path.name.startswith(".") for path in other.rglob("*"))
    return {
        "table": "same" if tables[0] == tables[1] else f"differ: {tables[0]} {tables[1]}",
        "tensors": "same" if not differ else f"{len(differ)} differ, {differ[0]} first",
        "left": left,
    }


def _table(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table without measured times."""
    rows = json.loads((folder / "summary.json").read_text())["table"]
    return [{name: value for name, value in row.items() if not name.endswith("_ms")} for row in rows]


def _tensors(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Dtype with shape, and bytes, of every tensor of every checkpoint, by file and name."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (it is no mapping)
                value = tensors.get_tensor(name)
                found[f"{file.relative_to(folder)}: {name}"] = (f"{value.dtype} {value.shape}", value.tobytes())
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--within", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="more options of secateur run, after --")
    options = parser.parse_args()
    options.rest = [word for word in options.rest if word != "--"]
    return options


if __name__ == "__main__":
    main()
