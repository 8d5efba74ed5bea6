"""Measures Secateur on a GPU and compares its results with the CPU; writes JSON.

    benchmarks/gpu.sh [--out gpu.json] [--device cuda] [--weights best.pt] [--only validation,exports] [--seconds 540]
    benchmarks/gpu.sh --device cpu --small

    validation   yolov5x (or --weights) in fp16 at batch 32 and 640 px: milliseconds per image before, in and after the
                 network, in both memory layouts; its boxes compared with those of the CPU
    training     an epoch of yolov5s with labels: images per second; first loss and gradient compared with the CPU
    rounds       yolov5l to half its FLOPs: seconds per round; kept units of yolov5n compared with the CPU
    healing      400 steps of yolov5s cut to half: images per second, memory; first loss compared with the CPU
    exports      yolov5s exported from the GPU to ONNX and TorchScript, run on it if possible; outputs compared with
                 the CPU

Every section runs in a separate process with a time limit. The last output of a section that fails or takes too long is
recorded, the other sections run, and the command exits with code 1. `--small` uses the smallest networks and images.
Without given weights, networks have random weights, which do the same computations except for suppression. Milliseconds
are measured between synchronisations.
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
"""Time limit of each section in seconds."""
SHOWN = 2000
"""Characters kept of a failed section's last output."""


def main() -> None:
    """Runs all sections and writes their results; exits with 1 if one failed."""
    options = options_of(sys.argv[1:])
    if options.section:
        from gpu_sections import SECTIONS  # imports torch, unlike this file

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
    """The result of one section, from a separate process."""
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
                reason = f"it took more than its limit of {limit:.0f} s"
            said.seek(0)
            words_said = said.read()[-SHOWN:]
        seconds = time.monotonic() - began
        if reason or not out.is_file():
            return failed(reason or "it wrote no result", seconds, words_said)
        result: dict[str, Any] = json.loads(out.read_text())
    return {"ok": all(check["ok"] for check in result["checks"]), "seconds": round(seconds, 1), **result}


def failed(reason: str, seconds: float, said: str = "") -> dict[str, Any]:
    """The result of a section that has failed."""
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
    parser.add_argument("--weights", default="", help="checkpoint for the validation, instead of a random yolov5x")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=540, help="time after which no new section starts")
    parser.add_argument("--slack", type=float, default=1, help="factor on the time limits, for a loaded machine")
    parser.add_argument("--only", default=",".join(LIMITS), help="sections, separated by commas")
    parser.add_argument("--section", default="", help="set by the driver for this process")
    options = parser.parse_args(words)
    options.only = [name for name in options.only.split(",") if name]
    unknown = [name for name in (*options.only, options.section) if name and name not in LIMITS]
    if unknown:
        parser.error(f"unknown section {unknown[0]}; choose of {', '.join(LIMITS)}")
    return options


if __name__ == "__main__":
    main()
