"""Are budgets in milliseconds met? Cuts detectors to targets by their latency table and measures the result.

    python benchmarks/latency_budget.py [--cfg yolov5n yolov5s] [--weights yolov5n.pt] [--sizes 320 640]
        [--targets 0.85 0.7 0.55] [--threads 2] [--runtime onnx] [--score l2] [--refresh] [--json out.json]

Every cut is timed in interleaved rounds with the dense network, by a low percentile per layer over many runs, which
reduces the effect of background load. `measured` is the table's time of the dense network multiplied by the ratio of
the two. `wall` is the same ratio from wall-clock times of complete calls, also interleaved, which background load
affects more.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from secateur.deploy.speed.latency import measure_latency
from secateur.deploy.speed.latency_table import latency_table
from secateur.deploy.timing import STOPWATCHES, settle
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import trace
from secateur.pruning.importance import score
from secateur.pruning.options import LatencySettings
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut


def main() -> None:
    """Prints a table, and writes it as JSON."""
    options = _options()
    rows = []
    for name, checkpoint in _subjects(options).items():
        for size in options.sizes:
            rows += experiment(name, checkpoint, size, options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def experiment(name: str, checkpoint: Checkpoint, size: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """All targets of one detector at one size."""
    detector = checkpoint.build().eval()
    start = time.perf_counter()
    settings = LatencySettings(runtime=options.runtime, threads=options.threads)
    table = latency_table(detector, size, settings, refresh=options.refresh)
    took = time.perf_counter() - start
    print(f"{name} {size} px: {table.machine}, {table.runtime}, {table.threads} threads; table in {took:.0f} s")
    print(f"dense {table.dense:.2f} ms; ms = {table.slope:.3f} x sum + {table.offset:.3f}, R2 {table.r2:.4f}")
    graph = replace(trace(detector), timing=table)
    scores = score(options.score, graph, collect(detector, graph))
    cost = COSTS["ms"].of(graph, size)
    networks, predicted = [detector], []
    for target in options.targets:
        plan = allocate(graph, scores, Budget("ms", target * table.dense, share=False), per_saving=True, strict=False)
        networks.append(cut(detector, graph, plan))
        predicted.append(cost.price(plan.keep(graph)))
    stopwatch, shape = STOPWATCHES[options.runtime], (1, 3, size, size)
    times = [ms for (ms,) in settle([stopwatch.network(net, shape, table.threads) for net in networks], patience=12)]
    whole = {str(number): Checkpoint.of(network) for number, network in enumerate(networks)}
    compared = measure_latency(whole, size, rounds=options.rounds, threads=table.threads, runtime=options.runtime)
    print(f"{'target':>8} {'predicted':>10} {'measured':>9} {'error':>7} {'wall':>8} {'error':>7}")
    rows = []
    for number, (target, guess) in enumerate(zip(options.targets, predicted, strict=True), start=1):
        wanted, measured = target * table.dense, table.dense * times[number] / times[0]
        wall = table.dense / compared.ratios[str(number)]
        errors = measured / wanted - 1, wall / wanted - 1
        print(f"{wanted:8.2f} {guess:10.2f} {measured:9.2f} {errors[0]:+7.1%} {wall:8.2f} {errors[1]:+7.1%}")
        row = {"target": wanted, "predicted": guess, "measured": measured, "error": errors[0], "wall": wall}
        rows.append({"model": name, "size": size, "dense": table.dense, "r2": table.r2, "seconds": took, **row})
    return rows


def _subjects(options: argparse.Namespace) -> dict[str, Checkpoint]:
    torch.manual_seed(0)
    subjects = {Path(file).stem: load_checkpoint(file) for file in options.weights}
    for cfg in options.cfg:
        if cfg not in subjects:
            subjects[cfg] = Checkpoint.of(Detector(Topology.from_yaml(cfg, nc=80)))
    return subjects


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", nargs="*", default=["yolov5n", "yolov5s"])
    parser.add_argument("--weights", nargs="*", default=[])
    parser.add_argument("--sizes", nargs="*", type=int, default=[320, 640])
    parser.add_argument("--targets", nargs="*", type=float, default=[0.85, 0.7, 0.55], help="shares of the dense time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--score", default="l2")
    parser.add_argument("--rounds", type=int, default=40, help="timed calls of each network")
    parser.add_argument("--refresh", action="store_true", help="ignore the cached table")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
