"""The verbs that make a detector smaller: decide what goes, show the cliff, cut, repair."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from secateur.data.augment import Augmentation
from secateur.data.batches import TrainBatches, train_batches
from secateur.data.config import DataConfig
from secateur.data.dataset import Batch, DetectionDataset
from secateur.detector.checkpoint import Checkpoint, Stage
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.evaluation.validate import check_image_size
from secateur.files import read_json, write_json
from secateur.pruning.budget import Guards, allocate
from secateur.pruning.cliff import Cliff, cliff
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.importance import CRITERIA, needs_gradients, score
from secateur.pruning.layer_scores import LAYER_SCORES
from secateur.pruning.plan import KINDS, Budget, Plan
from secateur.pruning.repair import absorb_offsets, reestimate_batchnorm_
from secateur.pruning.settings import PruneSettings
from secateur.pruning.statistics import Statistics, Tie, collect
from secateur.pruning.surgery import cut, cut_masks
from secateur.sparsity.one_shot import check_one_shot
from secateur.stages.evaluation import evaluator, split_index, val_settings
from secateur.stages.pictures import draw_cliff
from secateur.training.hyp import Hyp
from secateur.training.loss import DetectionLoss

LOG = logging.getLogger("secateur")


@dataclass(frozen=True)
class Work:
    """What every pruning step reads besides its settings: data, image size in pixels, batch size, processes, seed."""

    data: DataConfig
    image_size: int
    batch_size: int = 16
    workers: int = 2
    seed: int = 0

    def images(self, limit: int, augmentation: Augmentation | None = None) -> TrainBatches:
        """Shuffled square training images, letterboxed where no augmentation is given."""
        index = split_index(self.data, "train")
        dataset = DetectionDataset(
            index, self.image_size, augmentation=augmentation, batch_size=self.batch_size, seed=self.seed
        )
        size = min(self.batch_size, limit, len(index.files))
        return train_batches(dataset, size, seed=self.seed, workers=0)


@dataclass(frozen=True)
class Decision:
    """A plan with the graph of the detector that it was made for."""

    plan: Plan
    graph: ChannelGraph

    @staticmethod
    def load(file: Path, checkpoint: Checkpoint) -> Decision:
        """Reads a saved plan for the checkpoint that it was made for."""
        return Decision(Plan.from_dict(read_json(file)), trace(checkpoint.detector()))

    def save(self, file: Path) -> None:
        """Writes the plan as JSON."""
        write_json(file, self.plan.to_dict())


def budgets_of(settings: PruneSettings) -> list[Budget]:
    """The channel budgets that are set, checked; none for a cut that only removes layers or zeroes weights.

    Raises:
        UserError: nothing is to be removed at all, or a budget is out of its range.
    """
    values = {kind: getattr(settings, kind) for kind in KINDS}
    budgets = [Budget.parse(kind, value) for kind, value in values.items() if value not in (None, "")]
    if not budgets and not settings.layers and not settings.unstructured:
        raise UserError(
            "No budget is given: say --percent 0.3, --params 0.5 or --flops 0.5 (several: all are met), --layers 2, "
            "or --unstructured 0.3."
        )
    other = [name for name in ("layers", "chains", "search") if getattr(settings, name)]
    if settings.unstructured and (budgets or other):
        raise UserError(
            "--unstructured zeroes weights and cuts nothing; give it without --percent, --params, --flops"
            f"{', --' + ', --'.join(other) if other else ''}."
        )
    if settings.search and not budgets:
        raise UserError("--search looks for widths within a budget; give --percent, --params or --flops with it.")
    if settings.chains and not settings.layers:
        raise UserError("--chains says that --layers counts whole chains; give --layers 1 with it.")
    return budgets


def check_settings(settings: PruneSettings) -> tuple[list[Budget], Guards]:
    """Budgets and guards, checked before any work starts.

    Raises:
        UserError: an option is out of its range or the criterion unknown.
    """
    CRITERIA[settings.criterion]  # an unknown name is an error that lists the known ones
    if settings.unstructured:
        check_one_shot(settings)
    if settings.layers:
        LAYER_SCORES[settings.layer_score]
    if settings.search not in ("", "eagleeye"):
        raise UserError(f"Unknown search '{settings.search}'; choose eagleeye, or leave --search out.")
    if not 0 < settings.recalibrate_share <= 1:
        raise UserError(f"--recalibrate-share is {settings.recalibrate_share}; it must be over 0 and at most 1.")
    for name in ("recalibrate", "cliff_images"):
        if getattr(settings, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(settings, name)}; it must be at least 0.")
    if settings.statistics_images < 1:
        raise UserError(f"--statistics-images is {settings.statistics_images}; it must be at least 1.")
    guards = Guards(
        min_share=settings.min_share,
        min_count=settings.min_count,
        round_to=settings.round_to,
        exclude=tuple(settings.exclude),
    )
    return budgets_of(settings), guards


def decide(
    checkpoint: Checkpoint, work: Work, settings: PruneSettings, folder: Path | None = None
) -> tuple[Decision, Cliff | None]:
    """Scores the channels, allocates the budget and measures the cliff curve around the chosen plan.

    Args:
        folder: where a search keeps what it has tried, so that it goes on after a kill.

    Raises:
        UserError: bad options, a budget out of reach, or a criterion without what it needs.
    """
    budgets, guards = check_settings(settings)
    detector = checkpoint.detector()
    image_size = check_image_size(work.image_size, int(max(detector.strides)))
    graph = trace(detector)
    statistics = gather(detector, graph, work, settings)
    scores = score(settings.criterion, graph, statistics, tie=cast(Tie, settings.tie), seed=work.seed)
    plans = [
        allocate(graph, scores, budget, guards, image_size=image_size, criterion=settings.criterion)
        for budget in budgets
    ]
    plan = joint(graph, plans)
    if settings.search:
        from secateur.stages.searching import search_plan  # it reads Work from here

        plan = search_plan(checkpoint, work, settings, graph, scores, budgets, guards, folder)
    decision = Decision(plan, graph)
    if not settings.cliff:
        return decision, None
    index = split_index(work.data, "val")
    limit = min(settings.cliff_images, len(index.files)) or None
    evaluate = evaluator(index, val_settings(image_size, 0), limit)
    curve = cliff(evaluate, detector, graph, scores, guards, chosen=plan, image_size=image_size)
    print(curve.table())
    return decision, curve


def joint(graph: ChannelGraph, plans: list[Plan]) -> Plan:
    """One plan that meets the budgets of all: what every plan keeps.

    The plans follow one order of scores, but each spends what rounding left of its own budget, so none needs to lie
    within the others. In every space the smallest of their counts stays, which is as good a multiple as theirs.
    """
    keep = [plan.keep(graph) for plan in plans]
    common = np.logical_and.reduce(keep)
    smallest = min(plans, key=lambda plan: plan.units_kept)
    if int(common.sum()) == smallest.units_kept:
        return smallest
    notes = tuple(dict.fromkeys(note for plan in plans for note in plan.notes))
    return Plan.of(
        graph, common, smallest.image_size, budget=smallest.budget, criterion=smallest.criterion, notes=notes
    )


def gather(detector: Detector, graph: ChannelGraph, work: Work, settings: PruneSettings) -> Statistics:
    """Statistics for the criterion: gradients of the detection loss on labelled training images where it needs them."""
    if not needs_gradients(settings.criterion):
        return collect(detector, graph)
    batches, loss = labelled(detector, work, settings)
    return collect(detector, graph, batches, loss, limit=settings.statistics_images)


def labelled(
    detector: Detector, work: Work, settings: PruneSettings
) -> tuple[Iterable[Batch], Callable[[Detector, Batch], Tensor]]:
    """Labelled training images, and the detection loss of a batch of them."""
    term = DetectionLoss(detector, Hyp(), work.image_size)

    def loss(network: Detector, batch: Batch) -> Tensor:
        total, _ = term(network(pixels(batch)), batch.targets)
        return total

    # One image a batch: the figures are then those of single images, as the criteria are defined.
    singles = dataclasses.replace(work, batch_size=1)
    return islice(singles.images(settings.statistics_images).epoch(0), settings.statistics_images), loss


def pixels(batch: Batch) -> Tensor:
    """Images of a batch as float32 [B, 3, H, W] in 0..1, channels_last."""
    return batch.images.float().div_(255).contiguous(memory_format=torch.channels_last)


def cut_channels(checkpoint: Checkpoint, decision: Decision) -> Checkpoint:
    """The smaller detector, without any repair."""
    return finished(checkpoint, cut(checkpoint.detector(), decision.graph, decision.plan), decision, repaired=False)


def repair(checkpoint: Checkpoint, decision: Decision, work: Work, settings: PruneSettings) -> Checkpoint:
    """The smaller detector with the constants of the removed channels absorbed and fresh BatchNorm statistics."""
    detector = checkpoint.detector()
    if settings.absorb:
        detector = absorb_offsets(detector, decision.graph, decision.plan)
    smaller = cut(detector, decision.graph, decision.plan)
    refresh_norms_(smaller, work, settings)
    return finished(checkpoint, smaller, decision, repaired=True)


def refresh_norms_(detector: Detector, work: Work, settings: PruneSettings) -> None:
    """Moves the BatchNorm statistics towards those of augmented training images, without labels."""
    if not settings.recalibrate:
        return
    # The statistics stand for what the training showed, so the images are augmented as there.
    batches = work.images(settings.recalibrate, Augmentation.from_hyp(dataclasses.asdict(Hyp())))
    count = max(settings.recalibrate // work.batch_size, 1)
    images = full_batches(batches, work.batch_size)
    reestimate_batchnorm_(detector, images, count, share=settings.recalibrate_share)


def full_batches(batches: TrainBatches, size: int) -> Iterator[Tensor]:
    """Images of the first epoch, batch by batch; a short last batch is left out where there are others."""
    for number, batch in enumerate(batches.epoch(0)):
        if number == 0 or len(batch.images) == size:
            yield pixels(batch)


def finished(checkpoint: Checkpoint, smaller: Detector, decision: Decision, *, repaired: bool) -> Checkpoint:
    """The checkpoint of the cut detector: this stage in its history, the way from the first network in `plan`."""
    plan = decision.plan
    settings: dict[str, Any] = {"budget": str(plan.budget), "criterion": plan.criterion, "repaired": repaired}
    cost = {
        "parameters": plan.after.parameters,
        "flops": plan.after.flops,
        "dense_parameters": plan.before.parameters,
        "dense_flops": plan.before.flops,
        "image_size": plan.image_size,
    }
    return Checkpoint.of(
        smaller,
        like=checkpoint,
        plan=since_the_first(checkpoint, plan).to_dict(),
        history=(*checkpoint.history, Stage(verb="prune", settings=settings, cost=cost)),
        masks=cut_masks(checkpoint.masks, decision.graph, plan),
    )


def since_the_first(checkpoint: Checkpoint, plan: Plan) -> Plan:
    """The plan that leads from the network that was cut first to what `plan` makes of this checkpoint."""
    return plan if checkpoint.plan is None else Plan.from_dict(checkpoint.plan).then(plan)


def save_decision(folder: Path, decision: Decision, curve: Cliff | None) -> None:
    """Writes plan.json, and cliff.json with its picture."""
    if curve is not None:
        write_json(folder / "cliff.json", curve.to_dict())
        draw_cliff(folder, curve)
    decision.save(folder / "plan.json")
