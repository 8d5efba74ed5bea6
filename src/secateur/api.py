"""The Python API: the same words as the command line, one function a step."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.detector.model import Detector
from secateur.pruning import depth, importance, surgery
from secateur.pruning import graph as graphs
from secateur.pruning.budget import Guards
from secateur.pruning.budget import allocate as allocate_units
from secateur.pruning.graph import ChannelGraph
from secateur.pruning.plan import Budget, Plan
from secateur.pruning.settings import PruneSettings
from secateur.pruning.statistics import Statistics, collect
from secateur.sparsity.one_shot import zero_weights


def load(path: str | Path) -> Checkpoint:
    """Reads a checkpoint: ours, a stock YOLOv5 `.pt`, or an official name; nothing in the file is executed.

    >>> checkpoint = load("yolov5n.pt")  # doctest: +SKIP
    >>> detector = checkpoint.detector()  # doctest: +SKIP
    """
    return load_checkpoint(path)


def trace(detector: Detector) -> ChannelGraph:
    """Finds which channels live or die together, and what any choice of them costs.

    >>> from secateur.detector.topology import Topology
    >>> graph = trace(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> graph.price(image_size=320).parameters
    1767976
    """
    return graphs.trace(detector)


def score(
    detector: Detector, graph: ChannelGraph, criterion: str = "gamma", statistics: Statistics | None = None
) -> NDArray[np.float64]:
    """Importance of every unit, [units]; `taylor` needs statistics gathered on labelled images.

    >>> from secateur.detector.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> score(detector, trace(detector), "l2").min() > 0
    np.True_
    """
    return importance.score(criterion, graph, statistics or collect(detector, graph))


def allocate(graph: ChannelGraph, scores: NDArray[np.float64], *, image_size: int = 640, **options: Any) -> Plan:
    """Decides what stays: `percent=0.3`, `params=0.5` or `flops="2.1G"`, with the guards of `Guards` as keywords.

    >>> from secateur.detector.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> plan = allocate(graph, score(detector, graph, "l2"), flops=0.5, round_to=8)
    >>> abs(plan.after.flops / plan.before.flops - 0.5) < 0.05
    True
    """
    budgets = [Budget.parse(kind, options.pop(kind)) for kind in ("percent", "params", "flops") if kind in options]
    if len(budgets) != 1:
        raise TypeError("give exactly one of percent, params and flops")
    return allocate_units(graph, scores, budgets[0], Guards(**options), image_size=image_size)


def cut(detector: Detector, graph: ChannelGraph, plan: Plan) -> Detector:
    """A new, smaller detector; the old one is left alone.

    >>> from secateur.detector.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> plan = allocate(graph, score(detector, graph, "l2"), percent=0.3)
    >>> smaller = cut(detector, graph, plan)
    >>> sum(p.numel() for p in smaller.parameters()) == plan.after.parameters
    True
    """
    return surgery.cut(detector, graph, plan)


def remove(detector: Detector, blocks: Iterable[str]) -> Detector:
    """A new detector without these bottlenecks; `secateur.pruning.depth` lists and scores those that can go.

    >>> from secateur.detector.topology import Topology
    >>> from secateur.pruning.depth import candidates
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> [block.name for block in candidates(detector)][:2]
    ['model.2.m.0', 'model.4.m.0']
    >>> shallower = remove(detector, ["model.4.m.0"])
    >>> len(candidates(detector)) - len(candidates(shallower))
    1
    """
    return depth.remove(detector, blocks)


def zero(checkpoint: Checkpoint, share: float, **options: Any) -> Checkpoint:
    """Zeroes the smallest weights of every convolution, with masks that later training holds.

    Args:
        share: of the weights, between 0 and 1.
        options: `scope` ("layer" or "global"), `pattern` ("1x1", "4x1", "2:4", ...), `exclude` (patterns of names).

    >>> from secateur.detector.topology import Topology
    >>> checkpoint = zero(Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3))), 0.5, pattern="2:4")
    >>> float((checkpoint.tensors["model.1.conv.weight"] == 0).float().mean())
    0.5
    """
    sparse, _ = zero_weights(checkpoint, PruneSettings(unstructured=share, **options))
    return sparse


def save(model: Checkpoint | Detector, path: str | Path) -> None:
    """Writes one `.safetensors` file that holds tensors, topology, names, anchors and history.

    >>> save(smaller, "smaller.safetensors")  # doctest: +SKIP
    """
    save_checkpoint(model if isinstance(model, Checkpoint) else Checkpoint.of(model), path)
