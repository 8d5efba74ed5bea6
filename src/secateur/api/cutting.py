"""From a network to a narrower one: trace, score, allocate, cut, repair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.api.any_network import prune_any
from secateur.api.arguments import (
    Data,
    Device,
    Model,
    Size,
    checkpoint_of,
    context_of,
    healed,
    network_of,
    size_of,
)
from secateur.api.images import Source
from secateur.api.options import number, refuse_unknown, settings_of, typed
from secateur.checkpoints import channels as cutting
from secateur.deploy.speed.rounding import decided_guards
from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evaluation import usable_size
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import family_of
from secateur.families.module.evidence_split import EvidenceImages
from secateur.families.only_classes import as_taught, only_classes
from secateur.machine import pick_device
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning import allocation, importance, surgery
from secateur.pruning import graph as graphs
from secateur.pruning.budget import budgets_from
from secateur.pruning.costs import COSTS
from secateur.pruning.evidence import LoaderEvidence
from secateur.pruning.graph import ChannelGraph
from secateur.pruning.options import ChannelSettings, GuardSettings, LatencySettings, budget_options
from secateur.pruning.plan import Plan
from secateur.pruning.prune import Pruned, scored
from secateur.pruning.settings import CliffSettings, Guards, RepairSettings, RoundSettings, ScoreSettings
from secateur.pruning.statistics import Statistics, collect
from secateur.ranges import POSITIVE

Network = TypeVar("Network", bound=nn.Module)
Floats = NDArray[np.float64]
_SETTINGS = (ScoreSettings, RoundSettings, GuardSettings, RepairSettings, LatencySettings, HealSettings)


def trace(model: Model, *inputs: Any) -> ChannelGraph:
    """Finds which channels live or die together, and what any choice of them costs.

    Args:
        model: a checkpoint, the file of one, a detector, or any network, which is left as it was.
        inputs: what the network is called with; a detector and networks that take one image need none.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> graph = trace(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> graph.price(image_size=320).parameters
    1767976
    """
    return graphs.trace(network_of(model), *inputs)


def score(
    model: Model,
    graph: ChannelGraph,
    criterion: str = "fisher",
    *,
    data: Data | LoaderEvidence | None = None,
    images: Source | int = None,
    rgb: bool = False,
    statistics_images: int = ScoreSettings.statistics_images,
    image_size: Size = 0,
    device: Device = "auto",
    statistics: Statistics | None = None,
) -> Floats:
    """Importance of every unit, [units].

    Args:
        model: a checkpoint, the file of one, a detector, or any network.
        criterion: `taylor` and `fisher` read gradients: give `data`, and they are gathered from labelled images, or
            `images`, and the detector's own detections are the labels. For any other network give `data` as
            `secateur.Evidence(batches, loss)`, or `statistics` (`secateur.pruning.statistics.collect`).
        data: a data.yaml, or evidence.
        images: images without labels, as `prune` takes them. (A number is that of `statistics_images`.)
        rgb: arrays among the images hold RGB.
        statistics_images: images to read.
        image_size: px; 0 takes the one that the checkpoint remembers.

    Raises:
        UserError: the criterion reads gradients, and there is nothing to take them from.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> score(detector, trace(detector), "l2").min() > 0
    np.True_
    """
    network = network_of(model)
    if statistics is not None or not importance.needs_gradients(criterion):
        return importance.score(criterion, graph, statistics or collect(network, graph))
    counted = isinstance(images, int)
    count = number(score, "statistics_images", images if counted else statistics_images, POSITIVE)
    settings = ScoreSettings(criterion=criterion, statistics_images=count)
    if isinstance(data, LoaderEvidence):
        return scored(network, graph, data, settings)
    if not family_of(network).knows("loss"):
        raise UserError(
            f"The criterion {criterion} reads gradients, and a {type(network).__name__} has no loss of its own: give "
            "data=secateur.Evidence(batches, loss), or criterion='l2'."
        )
    seen = None if counted else images
    checkpoint = checkpoint_of(model)
    with context_of(
        score, checkpoint, data, images=seen, rgb=rgb, image_size=image_size, device=device
    ) as given:  # fmt: skip
        context = given.known_to(checkpoint)
        if context.image_source is None:
            raise UserError(f"The criterion {criterion} reads images: give images= or data=, or criterion='l2'.")
        whole = checkpoint.build().to(context.device)
        return scored(whole, graph, FamilyEvidence(context, whole), settings, context.seed)


def allocate(
    graph: ChannelGraph, scores: Floats, *, image_size: Size | None = None, per_saving: bool = False, **options: Any
) -> Plan:
    """Decides what stays: budgets such as `percent=0.3`, `params=0.5`, `flops="2.1G"` (several: all are met).

    Args:
        image_size: px of a side, or (height, width), for which FLOPs are counted; None takes what was traced.
        per_saving: divide every score by what the unit saves of the budget's cost.
        options: budgets by the names of their costs, and the fields of `Guards`.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> plan = allocate(graph, score(detector, graph, "l2"), flops=0.5, params=0.6, image_size=640)
    >>> plan.after.flops <= 0.51 * plan.before.flops and plan.after.parameters <= 0.61 * plan.before.parameters
    True
    """
    refuse_unknown(allocate, options, [*COSTS, *Guards.__dataclass_fields__])
    budgets = budgets_from({name: options.pop(name) for name in COSTS if name in options})
    if not budgets:
        raise TypeError(f"give at least one budget: {', '.join(COSTS)}")
    [guards] = settings_of(allocate, options, Guards)
    size = None if image_size is None else size_of(allocate, image_size)
    return allocation.allocate(graph, scores, budgets, guards, image_size=size, per_saving=per_saving)


@overload
def cut(model: Checkpoint | str | Path, graph: ChannelGraph, plan: Plan) -> Checkpoint: ...


@overload
def cut(model: Network, graph: ChannelGraph, plan: Plan) -> Network: ...


def cut(model: Model, graph: ChannelGraph, plan: Plan) -> Checkpoint | nn.Module:
    """A new, smaller model; the old one is left alone. That of a checkpoint, or of its file, is a checkpoint, which
    notes the plan in its history.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> plan = allocate(graph, score(detector, graph, "l2"), percent=0.3)
    >>> smaller = cut(detector, graph, plan)
    >>> sum(p.numel() for p in smaller.parameters()) == plan.after.parameters
    True
    """
    if isinstance(model, nn.Module):
        return surgery.cut(model, graph, plan)
    return cutting.cut_channels(checkpoint_of(model), graph, plan)


@overload
def mask(network: Checkpoint | str | Path, graph: ChannelGraph, plan: Plan) -> nn.Module: ...


@overload
def mask(network: Network, graph: ChannelGraph, plan: Plan) -> Network: ...


def mask(network: Model, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """A network of the same size whose removed channels are silent: it computes what the cut network computes.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> graph = trace(detector)
    >>> silent = mask(detector, graph, allocate(graph, score(detector, graph, "l2"), percent=0.3))
    """
    return surgery.mask(network_of(network), graph, plan)


@overload
def prune(checkpoint: Network, data: LoaderEvidence, **options: Any) -> Pruned[Network]: ...


@overload
def prune(checkpoint: Model, data: Data | None = None, *, images: Source = None, **options: Any) -> Checkpoint: ...


def prune(
    checkpoint: Model,
    data: Data | LoaderEvidence | None = None,
    *,
    images: Source = None,
    classes: Sequence[str | int] = (),
    rgb: bool = False,
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: Device = "auto",
    heal: bool | str | Path = False,
    **options: Any,
) -> Checkpoint | Pruned[Any]:
    """Scores, cuts and corrects in rounds, with the defaults of `secateur prune`; with `heal` it then heals.

    Args:
        checkpoint: or the file of one, or a network. A plain module is cut too, by criteria that read no gradients
            (`gamma`, `l1`, `l2`), at the size that it is traced with.
        data: a data.yaml; criteria with gradients and the correction of the batch norms read its training images. For
            any network: `secateur.Evidence(batches, loss)`; then a `Pruned` comes back (`network`, `plan`, `graph`).
        images: images without labels that are read instead: a folder, a pattern, a `.txt` list, a file, an array (BGR),
            a tensor (RGB), a PIL image, or a list or generator of these (see `secateur.api.images.each_image`). Images
            in memory are written to a temporary folder for the duration of the call.
        classes: names or ids of those to keep: the outputs for others go, and, without a budget, nothing else does.
        rgb: arrays among the images hold RGB.
        image_size: px of a side; 0 takes the one that the checkpoint remembers.
        heal: True, or the folder that keeps what the healing writes.
        options: budgets by name (`flops=0.5`, `ms=8`), and the fields of the settings of scores, rounds, guards,
            repair, latency and healing.

    Raises:
        TypeError: an unknown option, or a value of another type.
        UserError: images that cannot be read, or a budget out of reach.

    >>> small = prune("best.pt", images="images/", flops=0.5, heal=True)  # doctest: +SKIP
    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> small = prune(checkpoint, criterion="l2", params=0.5)
    >>> small.plan["after"]["parameters"] < 0.51 * small.plan["before"]["parameters"]
    True
    """
    if isinstance(data, LoaderEvidence):
        if images is not None or heal or classes or not isinstance(checkpoint, nn.Module):
            raise TypeError("secateur.prune with Evidence takes a torch.nn.Module, and no images, classes or heal.")
        return prune_any(prune, checkpoint, data, image_size, seed, options)
    budget, scoring, rounds, guards, repairing, timing, healing = settings_of(
        prune, options, budget_options(), *_SETTINGS
    )
    timed = any(entry.cost == "ms" for entry in ChannelSettings(budget).budgets)
    guards = decided_guards(guards, timing, milliseconds=timed)
    settings = ChannelSettings(budget, scoring, rounds, guards, repairing, CliffSettings(cliff=False), latency=timing)
    keep = typed(prune, "heal", heal, bool | str)
    whole = checkpoint_of(checkpoint)
    if chosen := typed(prune, "classes", classes, tuple[str | int, ...]):
        whole = only_classes(whole, chosen)
        if not settings.budgets and not keep:
            return whole
    with context_of(
        prune, whole, data, images=images, rgb=rgb, image_size=image_size, batch_size=batch_size, seed=seed,
        device=device,
    ) as context:  # fmt: skip
        smaller, _ = cutting.prune(whole, context, settings)
        return healed(smaller, whole, context, healing, "" if keep is True else keep) if keep else smaller


def heal(
    checkpoint: Model,
    teacher: Model,
    images: Source = None,
    *,
    rgb: bool = False,
    data: Data | None = None,
    folder: str | Path = "",
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: Device = "auto",
    **options: Any,
) -> Checkpoint:
    """Trains a cut network for minutes, without labels, to answer as the whole one does.

    Args:
        checkpoint: or the file of one, or a network.
        teacher: the network that it was cut from, or its file.
        images: as `prune` takes them; or `secateur.Evidence`, whose inputs a module of the user's is called with
            (4,096 at most; its loss is not read).
        rgb: arrays among the images hold RGB.
        data: a data.yaml whose training images are read where no others are given.
        folder: for weights, results and the resumable state; called again with the same folder it goes on where it was.
        options: the fields of `HealSettings`.

    >>> healed = heal("pruned.safetensors", "best.pt", "images/")  # doctest: +SKIP
    """
    [settings] = settings_of(heal, options, HealSettings)
    start = checkpoint_of(checkpoint)
    whole = as_taught(checkpoint_of(teacher), start)
    if isinstance(images, LoaderEvidence):
        side = int(images.example()[0].shape[-1])
        place, size = pick_device(device), usable_size(start, image_size or side)
        seen = Context(
            size, place, None, batch_size=batch_size, workers=0, seed=seed, unlabelled=EvidenceImages(images)
        )
        return healed(start, whole, seen, settings, str(folder))
    with context_of(
        heal, start, data, images=images, rgb=rgb, image_size=image_size, batch_size=batch_size, seed=seed,
        device=device,
    ) as context:  # fmt: skip
        return healed(start, whole, context, settings, str(folder))


def repair(
    checkpoint: Model,
    graph: ChannelGraph,
    plan: Plan,
    data: Data | None = None,
    *,
    images: Source = None,
    rgb: bool = False,
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: Device = "auto",
    **options: Any,
) -> Checkpoint:
    """Cuts like `cut`, but first moves the constants of what goes into what stays, and refreshes batch norms.

    Args:
        data: a data.yaml whose training images (no labels) the batch norms see; without images they stay as they are.
        images: images that they see instead, as `prune` takes them.
        rgb: arrays among the images hold RGB.
        options: the fields of `RepairSettings`.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> graph = trace(checkpoint)
    >>> plan = allocate(graph, score(checkpoint, graph, "l2"), percent=0.3)
    >>> repair(checkpoint, graph, plan).history[-1].settings["repaired"]
    True
    """
    [settings] = settings_of(repair, options, RepairSettings)
    whole = checkpoint_of(checkpoint)
    with context_of(
        repair, whole, data, images=images, rgb=rgb, image_size=image_size, batch_size=batch_size, seed=seed,
        device=device,
    ) as context:  # fmt: skip
        return cutting.repair(whole, graph, plan, context, settings)
