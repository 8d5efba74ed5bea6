"""Measures time and memory of pruning rounds (scoring, cutting, correcting).

    python benchmarks/rounds_speed.py --cfg yolov5s --data data.yaml [--img 320] [--share 0.5] [--stop-after 2]
        [--json out.json]

The topology gets fresh weights, which do the same computations as trained ones. Prints the seconds of every round as it
ends (the first one also measures the moments of the dense network), their sum, and the peak memory of the process. With
`--stop-after`, the remaining rounds are skipped with a message.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch

from secateur.checkpoints.channels import prune
from secateur.data.config import load_data_config
from secateur.families.context import Context
from secateur.families.starting import starting_point
from secateur.machine import cpu_threads, processor
from secateur.pruning import rounds
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.prune import Kept
from secateur.pruning.settings import CliffSettings


class EnoughError(Exception):
    """Enough rounds have been timed."""


def main() -> None:
    """Prints one line per round."""
    options = _options()
    torch.set_num_threads(cpu_threads())
    data = load_data_config(options.data)
    whole = starting_point("", options.cfg, data.names)
    context = Context(options.img, data=data, workers=0)
    settings = ChannelSettings(budget=budget_options()(flops=str(options.share)), cliff=CliffSettings(cliff=False))
    times: list[float] = []
    last = time.perf_counter()
    write = rounds.write_json

    def note(file: Path, state: object) -> None:
        nonlocal last
        now = time.perf_counter()
        times.append(now - last)
        print(f"round {len(times)}: {times[-1]:.1f} s, {_gigabytes():.1f} GB at most", flush=True)
        last = now
        if len(times) == options.stop_after:
            raise EnoughError

    rounds.write_json = note  # the state is written at the end of a round
    try:
        with tempfile.TemporaryDirectory() as folder:
            prune(whole, context, settings, Kept(Path(folder)))
    except EnoughError:
        print("stopped there")
    finally:
        rounds.write_json = write
    row = {"cfg": options.cfg, "img": options.img, "share": options.share, "rounds": times, "memory_gb": _gigabytes()}
    print(processor())
    print(f"{len(times)} rounds: {sum(times):.0f} s, {row['memory_gb']:.1f} GB")
    if options.json:
        options.json.write_text(json.dumps(row, indent=1) + "\n")


def _gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--img", type=int, default=320)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--stop-after", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
