"""From a network to a smaller one: trace, score, allocate, cut, repair; layers and weights go too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.api.arguments import checkpoint_of, context_of, healed, network_of, refuse, taken, without_cliff
from secateur.compression import channels as cutting
from secateur.compression import layers as shortening
from secateur.compression.latency_table import latency_table
from secateur.compression.measuring import usable_size
from secateur.compression.settings import ChannelSettings, GuardSettings, LatencySettings, budget_options
from secateur.compression.speed.rounding import decided_guards
from secateur.detector.checkpoint import Checkpoint, load_checkpoint
from secateur.distillation.settings import HealSettings
from secateur.pruning import allocation, depth, importance, surgery
from secateur.pruning import graph as graphs
from secateur.pruning.budget import budgets_from
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import ChannelGraph
from secateur.pruning.latency import LatencyTable
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards, LayerSettings, RepairSettings, RoundSettings, ScoreSettings
from secateur.pruning.statistics import Statistics, collect
from secateur.sparsity.one_shot import zero_weights
from secateur.sparsity.settings import OneShotSettings

Network = TypeVar("Network", bound=nn.Module)
Model = TypeVar("Model", Checkpoint, nn.Module)
Floats = NDArray[np.float64]
GROUPS: dict[str, type[Any]] = {
    "score": ScoreSettings,
    "rounds": RoundSettings,
    "guards": GuardSettings,
    "repair": RepairSettings,
    "latency": LatencySettings,
}


def trace(model: Checkpoint | nn.Module, *inputs: Any) -> ChannelGraph:
    """Finds which channels live or die together, and what any choice of them costs.

    Args:
        model: a checkpoint, a detector, or any network.
        inputs: what the network is called with; a detector and networks that take one picture need none.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> graph = trace(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> graph.price(image_size=320).parameters
    1767976
    """
    return graphs.trace(network_of(model), *inputs)


def latency(
    model: Checkpoint | nn.Module,
    image_size: int = 0,
    *,
    file: str | Path = "",
    runtime: str = "",
    threads: int = 0,
) -> LatencyTable:
    """What every layer of a model takes at every width on this machine: with it in its graph, budgets may be in `ms`.

    It is measured once, in a minute or two, and known from then on; or read from a `file` of `secateur latency`.

    Args:
        model: the dense one; the table holds for all that is cut from it.
        image_size: px; 0 takes the one that the checkpoint remembers, else 640.
        runtime: "onnx" or "torch"; "" takes the first that is installed.
        threads: 0 takes those that this process was granted.

    >>> graph = trace(checkpoint)  # doctest: +SKIP
    >>> graph = dataclasses.replace(graph, timing=latency(checkpoint, 320))  # doctest: +SKIP
    >>> plan = allocate(graph, score(checkpoint, graph, "l2"), ms=8)  # doctest: +SKIP
    """
    size = usable_size(model, image_size) if isinstance(model, Checkpoint) else image_size or 640
    settings = LatencySettings(str(file), runtime, threads)
    return latency_table(network_of(model), size, settings)


def score(
    model: Checkpoint | nn.Module,
    graph: ChannelGraph,
    criterion: str = "fisher",
    *,
    data: str | Path | None = None,
    image_size: int = 0,
    images: int = 256,
    device: str = "auto",
    statistics: Statistics | None = None,
) -> Floats:
    """Importance of every unit, [units].

    Args:
        criterion: `taylor` and `fisher` read gradients: give `data`, and they are gathered from labelled images;
            or give `statistics` that were collected in another way.
        data: a data.yaml.
        image_size: px; 0 takes the one that the checkpoint remembers.
        images: labelled images to read.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> score(detector, trace(detector), "l2").min() > 0
    np.True_
    """
    network = network_of(model)
    if statistics is not None or not importance.needs_gradients(criterion):
        return importance.score(criterion, graph, statistics or collect(network, graph))
    checkpoint = checkpoint_of(model)
    context = context_of(checkpoint, data, image_size=image_size, device=device).known_to(checkpoint)
    settings = ScoreSettings(criterion=criterion, statistics_images=images)
    return cutting.score_channels(checkpoint.detector().to(context.device), graph, context, settings)


def allocate(
    graph: ChannelGraph, scores: Floats, *, image_size: int | None = None, per_saving: bool = False, **options: Any
) -> Plan:
    """Decides what stays: budgets such as `percent=0.3`, `params=0.5`, `flops="2.1G"` (several: all are met).

    Args:
        image_size: px for which FLOPs are counted; None takes the size that was traced.
        per_saving: divide every score by what the unit saves of the budget's cost.
        options: budgets by the names of their costs, and the fields of `Guards`.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> plan = allocate(graph, score(detector, graph, "l2"), flops=0.5, params=0.6, image_size=640)
    >>> plan.after.flops <= 0.51 * plan.before.flops and plan.after.parameters <= 0.61 * plan.before.parameters
    True
    """
    budgets = budgets_from({name: options.pop(name) for name in COSTS if name in options})
    if not budgets:
        raise TypeError(f"give at least one budget: {', '.join(COSTS)}")
    guards = Guards(**options)
    return allocation.allocate(graph, scores, budgets, guards, image_size=image_size, per_saving=per_saving)


def cut(model: Model, graph: ChannelGraph, plan: Plan) -> Model:
    """A new, smaller model; the old one is left alone. That of a checkpoint notes the plan in its history.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> plan = allocate(graph, score(detector, graph, "l2"), percent=0.3)
    >>> smaller = cut(detector, graph, plan)
    >>> sum(p.numel() for p in smaller.parameters()) == plan.after.parameters
    True
    """
    if isinstance(model, Checkpoint):
        return cutting.cut_channels(model, cutting.Decision(plan, graph))
    return surgery.cut(model, graph, plan)


def mask(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A copy of the same size whose removed channels are silent: it computes what the cut network computes.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> silent = mask(detector, graph, allocate(graph, score(detector, graph, "l2"), percent=0.3))
    """
    return surgery.mask(network, graph, plan)


def prune(
    checkpoint: Checkpoint | str | Path,
    data: str | Path | None = None,
    *,
    images: str | Path | None = None,
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: str = "auto",
    heal: bool | str | Path = False,
    **options: Any,
) -> Checkpoint:
    """Scores, cuts and corrects in rounds, with the defaults of `secateur prune`; with `heal` it then heals.

    Args:
        checkpoint: or the file of one.
        data: a data.yaml; criteria with gradients and the correction of the batch norms read its training images.
        images: pictures without labels that are read instead: a folder, a pattern, a list.
        heal: True, or the folder that keeps what the healing writes.
        options: budgets by name (`flops=0.5`, `ms=8`), and the fields of the settings of scores, rounds, guards,
            repair, latency and healing.

    >>> small = prune("best.pt", images="pictures/", flops=0.5, heal=True)  # doctest: +SKIP
    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> small = prune(checkpoint, criterion="l2", params=0.5)
    >>> small.plan["after"]["parameters"] < 0.51 * small.plan["before"]["parameters"]
    True
    """
    whole = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    context = context_of(
        whole, data, images=images, image_size=image_size, batch_size=batch_size, seed=seed, device=device
    )
    budget = budget_options()(**{name: str(options.pop(name)) for name in COSTS if name in options})
    groups = {name: taken(kind, options) for name, kind in GROUPS.items()}
    healing = taken(HealSettings, options)
    refuse(options)
    milliseconds = bool(budget.ms)
    groups["guards"] = decided_guards(groups["guards"], groups["latency"], milliseconds=milliseconds)
    settings = ChannelSettings(budget=budget, **groups)
    decision, _ = cutting.decide(whole, context, without_cliff(settings))
    smaller = cutting.repair(whole, decision, context, settings.repair)
    return healed(smaller, whole, context, healing, "" if heal is True else str(heal)) if heal else smaller


def heal(
    checkpoint: Checkpoint | str | Path,
    teacher: Checkpoint | str | Path,
    images: str | Path | None = None,
    *,
    data: str | Path | None = None,
    folder: str | Path = "",
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: str = "auto",
    **options: Any,
) -> Checkpoint:
    """Trains a cut detector for minutes, without labels, to answer as the whole one does.

    Args:
        checkpoint: or the file of one.
        teacher: the detector that it was cut from, or its file.
        images: pictures: a folder, a pattern, a list.
        data: a data.yaml whose training images are read where no pictures are given.
        folder: for weights, results and the resumable state; called again with the same folder it goes on where it was.
        options: the fields of `HealSettings`.

    >>> healed = heal("pruned.safetensors", "best.pt", "pictures/")  # doctest: +SKIP
    """
    start = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    whole = teacher if isinstance(teacher, Checkpoint) else load_checkpoint(teacher)
    context = context_of(
        start, data, images=images, image_size=image_size, batch_size=batch_size, seed=seed, device=device
    )
    settings = taken(HealSettings, options)
    refuse(options)
    return healed(start, whole, context, settings, str(folder))


def repair(
    checkpoint: Checkpoint,
    graph: ChannelGraph,
    plan: Plan,
    data: str | Path | None = None,
    *,
    image_size: int = 0,
    device: str = "auto",
    **options: Any,
) -> Checkpoint:
    """Cuts like `cut`, but first moves the constants of what goes into what stays, and refreshes batch norms.

    Args:
        data: a data.yaml whose training images (no labels) the batch norms see; without it they stay as they are.
        options: the fields of `RepairSettings`.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> graph = trace(checkpoint)
    >>> plan = allocate(graph, score(checkpoint, graph, "l2"), percent=0.3)
    >>> repair(checkpoint, graph, plan).history[-1].settings["repaired"]
    True
    """
    context = context_of(checkpoint, data, image_size=image_size, device=device)
    settings = taken(RepairSettings, options)
    refuse(options)
    return cutting.repair(checkpoint, cutting.Decision(plan, graph), context, settings)


def remove(model: Network, blocks: Iterable[str]) -> Network:
    """A new detector without these bottlenecks; `secateur.pruning.depth` lists and scores those that can go.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> from secateur.pruning.depth import candidates
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> [block.name for block in candidates(detector)][:2]
    ['model.2.m.0', 'model.4.m.0']
    >>> shallower = remove(detector, ["model.4.m.0"])
    >>> len(candidates(detector)) - len(candidates(shallower))
    1
    """
    return depth.remove(model, blocks)


def shorten(
    checkpoint: Checkpoint, layers: int, data: str | Path | None = None, *, device: str = "auto", **options: Any
) -> Checkpoint:
    """Removes the `layers` bottlenecks that matter least, and makes up for what they added.

    Args:
        options: the fields of `LayerSettings` (`layer_score="gamma"` reads no images) and `RepairSettings`.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> len(shorten(checkpoint, 2, layer_score="gamma").plan["removed_blocks"])
    2
    """
    context = context_of(checkpoint, data, device=device)
    settings = dataclasses.replace(taken(LayerSettings, options), layers=layers)
    repaired = taken(RepairSettings, options)
    refuse(options)
    return shortening.remove_layers(checkpoint, context, settings, repaired)[0]


def zero(checkpoint: Checkpoint, share: float, **options: Any) -> Checkpoint:
    """Zeroes the smallest weights of every convolution, with masks that later training holds.

    Args:
        share: of the weights, between 0 and 1.
        options: `scope` ("layer" or "global"), `pattern` ("1x1", "4x1", "2:4", ...), `exclude` (patterns of names).

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = zero(Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3))), 0.5, pattern="2:4")
    >>> float((checkpoint.tensors["model.1.conv.weight"] == 0).float().mean())
    0.5
    """
    sparse, _ = zero_weights(checkpoint, OneShotSettings(unstructured=share, **options))
    return sparse
