"""From a network to a smaller one: trace, score, allocate, cut, repair, heal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.api.any_network import prune_any
from secateur.api.arguments import Data, Device, Model, Size, checkpoint_of, context_of, healed, network_of, size_of
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
    """Traces a network to its channel graph: which channels must be removed together, and what every choice costs.

    Args:
        model: a checkpoint, the path of one, a detector, or any network; it is not changed.
        inputs: example inputs of the network. Detectors and networks that take one image need none.

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
    """Scores the importance of every unit: float64 [units].

    Args:
        model: a checkpoint, the path of one, a detector, or any network.
        graph: its channel graph, from `trace`.
        criterion: name of the criterion. `taylor` and `fisher` use gradients from labelled images (`data`), or from
            unlabelled images (`images`) with the detector's own detections as labels. For any other network, pass
            `data=secateur.Evidence(batches, loss)`, or `statistics` (`secateur.pruning.statistics.collect`).
        data: a data.yaml, or evidence.
        images: unlabelled images, see `prune`. (An integer sets `statistics_images`.)
        rgb: arrays among the images are RGB.
        statistics_images: number of images to use.
        image_size: px; 0 uses the size stored in the checkpoint.
        device: device to run on.
        statistics: collected statistics to use instead of images.

    Raises:
        UserError: the criterion needs gradients or images that are not given.

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
            f"The criterion {criterion} needs gradients, and no loss is defined for a "
            f"{type(network).__name__}. Give data=secateur.Evidence(batches, loss), or criterion='l2'."
        )
    seen = None if counted else images
    checkpoint = checkpoint_of(model)
    with context_of(
        score, checkpoint, data, images=seen, rgb=rgb, image_size=image_size, device=device
    ) as given:  # fmt: skip
        context = given.known_to(checkpoint)
        if context.image_source is None:
            raise UserError(f"The criterion {criterion} needs images. Give images= or data=, or criterion='l2'.")
        whole = checkpoint.build().to(context.device)
        return scored(whole, graph, FamilyEvidence(context, whole), settings, context.seed)


def allocate(
    graph: ChannelGraph, scores: Floats, *, image_size: Size | None = None, per_saving: bool = False, **options: Any
) -> Plan:
    """Decides which units to keep within budgets such as `percent=0.3`, `params=0.5`, `flops="2.1G"`. If several
    budgets are given, all are met.

    Args:
        graph: channel graph, from `trace`.
        scores: float64 [units], from `score`.
        image_size: px of a side, or (height, width), for counting FLOPs; None uses the traced size.
        per_saving: divide every score by the cost that removing the unit saves.
        options: budgets by the names of their costs, and the fields of `Guards`.

    Raises:
        TypeError: an option is unknown, or a value has another type.
        UserError: no budget is given, or a budget cannot be reached.

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
    """Cuts a network to a plan and returns a new, smaller model; the original is not changed. For a checkpoint, or the
    path of one, the result is a checkpoint with the plan in its history.

    Args:
        model: a checkpoint, the path of one, or a network.
        graph: its channel graph, from `trace`.
        plan: which units to keep, from `allocate`.

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
    """Returns a network of the same size whose removed channels are set to zero. Its outputs equal those of the cut
    network.

    Args:
        network: a checkpoint, the path of one, or a network; it is not changed.
        graph: its channel graph, from `trace`.
        plan: which units to keep, from `allocate`.

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
    """Prunes in rounds of scoring, cutting and correcting, with the defaults of `secateur prune`.

    Args:
        checkpoint: a checkpoint, the path of one, or a network. A plain module is cut with criteria that need no
            gradients (`gamma`, `l1`, `l2`), at the size at which it is traced.
        data: a data.yaml; gradient criteria and the correction of batch norms use its training images. For any network:
            `secateur.Evidence(batches, loss)`; the result is then a `Pruned` (`network`, `plan`, `graph`).
        images: unlabelled images to use instead: a folder, a pattern, a `.txt` list, a file, an array (uint8 [H, W, 3],
            BGR), a tensor ([3, H, W], RGB), a PIL image, or a list or generator of these. Images in memory are written
            to a temporary folder during the call.
        classes: names or ids of the classes to keep. The outputs for all others are removed. Without a budget, nothing
            else is removed.
        rgb: arrays among the images are RGB.
        image_size: px of a side; 0 uses the size stored in the checkpoint.
        batch_size: images per batch.
        seed, device: random seed; device to run on.
        heal: heal the result. True, or a folder for the files of the healing.
        options: budgets by name (`flops=0.5`, `ms=8`), and the fields of the settings of scores, rounds, guards,
            repair, latency and healing.

    Raises:
        TypeError: an option is unknown, or a value has another type.
        UserError: an image cannot be read, or a budget cannot be reached.

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
            raise TypeError(
                "With Evidence, secateur.prune needs a torch.nn.Module and does not support images, classes or "
                "heal. Remove these arguments."
            )
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
    """Trains a cut network for minutes, without labels, to reproduce the outputs of the dense network.

    Args:
        checkpoint: a checkpoint, the path of one, or a network.
        teacher: the dense network from which it was cut, or its path.
        images: see `prune`; or a `secateur.Evidence` whose inputs a user's module takes (at most 4,096; its loss is not
            used).
        rgb: arrays among the images are RGB.
        data: a data.yaml whose training images are used if no others are given.
        folder: folder for weights, results and the resumable state. A call with the same folder resumes.
        image_size: px of a side; 0 uses the size stored in the checkpoint.
        batch_size: images per batch.
        seed: random seed.
        device: device to run on.
        options: the fields of `HealSettings`.

    Raises:
        TypeError: an option is unknown, or a value has another type.
        UserError: there are too few images, or the teacher does not match.

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
    """Cuts as `cut` does, but first absorbs constant outputs of removed channels into the remaining layers, and
    corrects batch norms.

    Args:
        checkpoint: a checkpoint, the path of one, or a network.
        graph: its channel graph, from `trace`.
        plan: which units to keep, from `allocate`.
        data: a data.yaml whose training images (without labels) correct the batch norms. Without images, batch norms
            are not corrected.
        images: images to use instead, see `prune`.
        rgb: arrays among the images are RGB.
        image_size: px of a side; 0 uses the size stored in the checkpoint.
        batch_size: images per batch.
        seed: random seed.
        device: device to run on.
        options: the fields of `RepairSettings`.

    Raises:
        TypeError: an option is unknown, or a value has another type.
        UserError: an image cannot be read.

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
