"""What a GPU does with Secateur, and whether it does the same as the CPU; results as JSON.

    benchmarks/gpu.sh [--out gpu.json] [--device cuda] [--weights best.pt] [--only validation,exports] [--seconds 540]
    benchmarks/gpu.sh --device cpu --small

    validation   yolov5x (or --weights) in fp16 at batch 32 and 640 px: milliseconds an image before, in and after the
                 network, in both memory layouts; its boxes against those of the CPU
    training     an epoch of yolov5s with labels, images a second; the first loss and gradient against the CPU's
    rounds       yolov5l to half its FLOPs, seconds a round; which units yolov5n keeps, against the CPU
    healing      400 steps of yolov5s cut to half, images a second, memory; the first loss against the CPU's
    exports      yolov5s from the GPU as ONNX and TorchScript, run on it where a runtime can; outputs against the CPU's

Every section runs in a process of its own with a time limit. One that fails or takes too long is noted with its last
output, and the others continue; the command then ends with code 1. `--small` takes the smallest networks and images.
Networks have random weights where none are given: what is computed is the same, except for the boxes that are
suppressed. Milliseconds are taken between synchronisations.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIMITS = {"validation": 110, "training": 100, "rounds": 160, "healing": 100, "exports": 70}
"""Seconds of each section."""
SHOWN = 2000
"""Characters of what a failed section said last."""


def main() -> None:
    """Runs all sections and writes their results; exits with 1 where one failed."""
    options = options_of(sys.argv[1:])
    if options.section:
        from gpu_sections import SECTIONS  # the part that imports torch

        options.out.write_text(json.dumps(SECTIONS[options.section](options), indent=1) + "\n")
        return
    began, results = time.monotonic(), {}
    for name in options.only:
        left = options.seconds - (time.monotonic() - began)
        limit = min(options.slack * LIMITS[name], left)
        results[name] = section(name, limit, options) if left > 5 else failed("no time was left", 0)
        print(line_of(name, results[name]), flush=True)
        report = {"python": platform.python_version(), "small": options.small, "sections": results}
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"Written: {options.out}, after {time.monotonic() - began:.0f} s")
    raise SystemExit(0 if all(result["ok"] for result in results.values()) else 1)


def section(name: str, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """The result of one section, from a process of its own."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        words = ["--section", name, "--out", str(out), "--device", options.device, "--weights", options.weights]
        command = [sys.executable, str(Path(__file__).resolve()), *words, *(["--small"] if options.small else [])]
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            try:
                code = subprocess.run(command, stdout=said, stderr=said, timeout=limit, check=False).returncode
                reason = f"it ended with code {code}" if code else ""
            except subprocess.TimeoutExpired:
                reason = f"it took more than {limit:.0f} s"
            said.seek(0)
            words_said = said.read()[-SHOWN:]
        seconds = time.monotonic() - began
        if reason or not out.is_file():
            return failed(reason or "it wrote no result", seconds, words_said)
        result: dict[str, Any] = json.loads(out.read_text())
    return {"ok": all(check["ok"] for check in result["checks"]), "seconds": round(seconds, 1), **result}


def failed(reason: str, seconds: float, said: str = "") -> dict[str, Any]:
    """The result of a section that has none."""
    return {"ok": False, "seconds": round(seconds, 1), "error": reason, "said": said, "checks": []}


def line_of(name: str, result: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    if "error" in result:
        last = (result["said"].strip().splitlines() or [""])[-1]
        return f"{name:<11} FAILED: {result['error']}. {last}"
    figures = [f"{key} {value:.4g}" for key, value in result["figures"].items() if isinstance(value, int | float)]
    wrong = [check["name"] for check in result["checks"] if not check["ok"]]
    verdict = f"DIFFERS: {', '.join(wrong)}" if wrong else f"{len(result['checks'])} checks hold"
    return f"{name:<11} {result['seconds']:.0f} s; {', '.join(figures)}; {verdict}"


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", default="", help="checkpoint for the validation, in place of a random yolov5x")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=540, help="after which nothing new begins")
    parser.add_argument("--slack", type=float, default=1, help="factor on the time limits, for a busy machine")
    parser.add_argument("--only", default=",".join(LIMITS), help="sections, with commas between")
    parser.add_argument("--section", default="", help="of this process; given by the driver")
    options = parser.parse_args(words)
    options.only = [name for name in options.only.split(",") if name]
    unknown = [name for name in (*options.only, options.section) if name and name not in LIMITS]
    if unknown:
        parser.error(f"unknown section {unknown[0]}; choose of {', '.join(LIMITS)}")
    return options


if __name__ == "__main__":
    main()
