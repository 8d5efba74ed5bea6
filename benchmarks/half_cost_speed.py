"""How much faster is a detector with half the FLOPs? Dense, and cut with widths unrounded, rounded and chosen by time.

    python benchmarks/half_cost_speed.py [--weights yolov5s.pt | --cfg yolov5s] [--sizes 320 640]
        [--runtimes onnx openvino torch] [--batches 1] [--threads 2] [--rounds 50] [--json out.json]

Five detectors: dense; cut to a share of its FLOPs without rounding, to multiples of 8, and to the efficient multiple of
this machine (`--round-to auto`); and cut by the latency table (`--ms`) to the same share of its time, or as close as
possible. All run in interleaved rounds. Timing needs no training: with --cfg, weights are random and the criterion is
l2. Runtimes that are not installed are skipped with a message. Keep the machine idle during the measurement.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from secateur.deploy.speed.comparison import compare_files
from secateur.deploy.speed.latency_table import latency_table
from secateur.deploy.speed.rounding import auto_round_to
from secateur.deploy.speed.table import bench_table
from secateur.deploy.speed.timed import BenchSettings, check_runtimes
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.machine import cpu_threads, processor
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.importance import score
from secateur.pruning.options import LatencySettings
from secateur.pruning.settings import Guards
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut


def main() -> None:
    """Prints a table per size, and writes everything as JSON."""
    options = _options()
    torch.manual_seed(0)
    start = load_checkpoint(options.weights) if options.weights else Checkpoint.of(_untrained(options.cfg))
    runtimes = _installed(options.runtimes)
    multiple = auto_round_to(LatencySettings(threads=options.threads))
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        rows += experiment(start, size, multiple, runtimes, options)
    if options.json:
        told = {"machine": processor(), "threads": options.threads, "share": options.flops, "round_to_auto": multiple}
        options.json.write_text(json.dumps({**told, "rows": rows}, indent=2) + "\n")


def experiment(
    start: Checkpoint, size: int, multiple: int, runtimes: tuple[str, ...], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """All detectors on all runtimes at one size."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, checkpoint in detectors(start, size, multiple, options).items():
            files.append(str(Path(folder) / f"{name}.safetensors"))
            save_checkpoint(checkpoint, files[-1])
        asked = BenchSettings(runtimes, size, tuple(options.batches), options.rounds, options.threads)
        result = compare_files(files, asked)
    found = []
    for block in result.blocks:
        rows = [replace(row, name=Path(row.name).stem) for row in block.rows]
        print(f"\n{processor()}, {options.threads} threads, batch {block.batch}, {size} px\n{bench_table(rows)}")
        for reason in block.reasons:
            print(reason.replace(f"{folder}/", ""))
        found += [{"size": size, "batch": block.batch, **row.to_dict()} for row in rows]
    return found


def detectors(start: Checkpoint, size: int, multiple: int, options: argparse.Namespace) -> dict[str, Checkpoint]:
    """The dense detector and its cuts, by name."""
    detector = start.build().eval()
    graph = trace(detector)
    scores = score(options.score, graph, collect(detector, graph))
    found = {"dense": start}
    half = Budget("flops", options.flops)
    for name, number in {"unrounded": 1, "round-to-8": 8, f"round-to-auto-{multiple}": multiple}.items():
        plan = allocate(graph, scores, half, Guards(round_to=number), image_size=size, per_saving=True, strict=False)
        found[name] = Checkpoint.of(cut(detector, graph, plan), like=start)
    table = latency_table(detector, size, LatencySettings(threads=options.threads))
    timed = replace(graph, timing=table)
    target = Budget("ms", options.flops)
    plan = allocate(timed, scores, target, image_size=size, per_saving=True, strict=False)
    return found | {"by-ms": Checkpoint.of(cut(detector, timed, plan), like=start)}


def _installed(names: list[str]) -> tuple[str, ...]:
    """The requested runtimes that are installed; prints a line for the others."""
    found: list[str] = []
    for name in names:
        try:
            found += check_runtimes([name])
        except UserError as error:
            print(f"skipped: {error}")
    return tuple(found)


def _untrained(cfg: str) -> Detector:
    return Detector(Topology.from_yaml(cfg, nc=80))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="")
    parser.add_argument("--cfg", default="yolov5s", help="untrained, where no weights are given")
    parser.add_argument("--sizes", nargs="*", type=int, default=[320, 640])
    parser.add_argument("--runtimes", nargs="*", default=["onnx", "openvino", "torch"])
    parser.add_argument("--batches", nargs="*", type=int, default=[1])
    parser.add_argument(
        "--flops",
        type=float,
        default=0.5,
        help=("share that is kept: of the FLOPs, or of the time with the latency table"),
    )
    parser.add_argument("--threads", type=int, default=cpu_threads())
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--score", default="l2")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
