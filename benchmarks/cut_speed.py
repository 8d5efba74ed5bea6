"""Compares the time for tracing yolov5l and cutting half of its channels with Torch-Pruning. Prints a table and JSON.

Both tools start from the same dense network in memory, remove half of the channels of every prunable layer by filter
magnitude (L2), and are timed in interleaved runs. Secateur: `trace`, scores and budget, `cut` (which copies the
network). Torch-Pruning: `DependencyGraph` and magnitude pruner of the PyPI package, which change the network in place;
the copy for this is made outside the timing.

    python benchmarks/cut_speed.py --model yolov5l --runs 7 --out cut_speed.json
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics as stats
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning

from secateur.evaluation.cost import count
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.importance import score
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut

SHARE = 0.5


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def half_of_every_layer(graph: ChannelGraph, scores: Floats) -> Plan:
    """Budgets share units among layers; ranking scores within each layer gives equal shares."""
    places = np.empty_like(scores)
    for space in graph.spaces:
        places[space.units[np.argsort(scores[space.units])]] = np.arange(len(space.units)) / len(space.units)
    return allocate(graph, places, Budget("percent", SHARE), Guards(min_share=0.1, round_to=1), criterion="l2")


def ours(detector: Detector) -> tuple[dict[str, float], Detector]:
    """Seconds per step, and the cut network."""
    tracing, graph = timed(lambda: trace(detector))
    deciding, plan = timed(lambda: half_of_every_layer(graph, score("l2", graph, collect(detector, graph))))
    cutting, small = timed(lambda: cut(detector, graph, plan))
    return {"graph": tracing, "decide": deciding, "cut": cutting, "total": tracing + deciding + cutting}, small


def theirs(detector: Detector) -> tuple[dict[str, float], Detector]:
    """Seconds per step, and the pruned network (the argument itself)."""
    image = torch.zeros(1, 3, 64, 64)
    pruner_type = getattr(torch_pruning.pruner, "BasePruner", torch_pruning.pruner.MetaPruner)
    tracing, pruner = timed(
        lambda: pruner_type(
            detector,
            image,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=SHARE,
            ignored_layers=list(detector.head.m),
        )
    )
    cutting, _ = timed(pruner.step)
    return {"graph": tracing, "decide": 0.0, "cut": cutting, "total": tracing + cutting}, detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov5l")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    dense = Detector(Topology.from_yaml(options.model)).eval()
    seconds: dict[str, list[dict[str, float]]] = {"secateur": [], "torch-pruning": []}
    parameters: dict[str, int] = {}
    for run in range(options.runs + 1):
        for name, way in (("secateur", ours), ("torch-pruning", theirs)):
            network = copy.deepcopy(dense)
            taken, small = way(network)
            if run > 0:  # the first round fills caches and imports
                seconds[name].append(taken)
            parameters[name] = sum(parameter.numel() for parameter in small.parameters())
            with torch.no_grad():
                small(torch.zeros(1, 3, 64, 64))
    medians = {name: {k: stats.median(run[k] for run in runs) for k in runs[0]} for name, runs in seconds.items()}
    ratio = medians["torch-pruning"]["total"] / medians["secateur"]["total"]
    print(
        f"{options.model}, {options.runs} interleaved runs, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    print(f"{'':14} {'graph s':>8} {'decide s':>9} {'cut s':>7} {'total s':>8} {'parameters left':>16}")
    for name, row in medians.items():
        print(
            f"{name:14} {row['graph']:>8.3f} {row['decide']:>9.3f} {row['cut']:>7.3f} {row['total']:>8.3f} "
            f"{parameters[name]:>16,}"
        )
    print(f"torch-pruning / secateur: {ratio:.2f}")
    if options.out is not None:
        result = {
            "model": options.model,
            "runs": options.runs,
            "dense_parameters": count(dense).parameters,
            "median_seconds": medians,
            "parameters_left": parameters,
            "ratio": ratio,
            "versions": {"torch": torch.__version__, "torch_pruning": torch_pruning.__version__},
        }
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
