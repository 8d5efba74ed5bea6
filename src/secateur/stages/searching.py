"""The search for widths by evaluation: what a candidate is worth, and where the search keeps its state."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from secateur.data.augment import Augmentation
from secateur.detector.checkpoint import Checkpoint
from secateur.detector.model import Detector
from secateur.evaluation.validate import check_image_size
from secateur.files import read_json, write_json
from secateur.pruning.budget import Guards
from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.plan import Budget, Plan
from secateur.pruning.repair import absorb_offsets, reestimate_batchnorm_
from secateur.pruning.search import search
from secateur.pruning.settings import PruneSettings
from secateur.pruning.surgery import cut
from secateur.stages.evaluation import evaluator, pick_device, split_index, val_settings
from secateur.training.hyp import Hyp

if TYPE_CHECKING:
    from secateur.stages.pruning import Work

LOG = logging.getLogger("secateur")
STATE = "search.json"
CALIBRATION_IMAGES = 64
"""Most images on which the BatchNorm statistics of a candidate are re-estimated: every candidate pays for them."""


def search_plan(
    checkpoint: Checkpoint,
    work: Work,
    settings: PruneSettings,
    graph: ChannelGraph,
    scores: Floats,
    budgets: Sequence[Budget],
    guards: Guards,
    folder: Path | None,
) -> Plan:
    """The plan of the best allocation that EagleEye's search finds; inside a layer the best `scores` [units] stay.

    A candidate's fitness is the mAP50 of the cut and repaired detector (constants absorbed and BatchNorm statistics
    re-estimated as `settings` say, the latter on at most 64 images). As in the paper it is measured on
    `settings.search_images` images of the training split, spread evenly: the validation split stays unseen, so its
    figures stay honest. mAP50 alone, for before any fine-tuning the boxes are too loose for mAP50-95 to tell much.

    Args:
        folder: where the search keeps `search.json`, from which the same call goes on after a kill; None keeps nothing.

    Raises:
        UserError: no training images, or no allocation meets the budgets.
    """
    detector = checkpoint.detector()
    image_size = check_image_size(work.image_size, int(max(detector.strides)))
    fitness = Fitness(detector, graph, work, settings, image_size)
    file = folder / STATE if folder is not None else None
    state = read_json(file) if file is not None and file.is_file() else None
    columns = (TextColumn("searching"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=settings.candidates)

        def save(state: dict[str, Any]) -> None:
            if file is not None:
                write_json(file, state)
            progress.update(task, completed=len(state["candidates"]))

        result = search(
            graph,
            scores,
            budgets,
            guards,
            fitness,
            candidates=settings.candidates,
            tolerance=settings.tolerance,
            seed=work.seed,
            image_size=image_size,
            state=state,
            save=save,
            criterion=settings.criterion,
        )
    if result.history:
        first, best = result.history[0].fitness, max(candidate.fitness for candidate in result.history)
        LOG.info(
            "Search: mAP50 %.3f on training images (global threshold %.3f), %d allocations evaluated, %d draws dropped",
            best, first, len(result.history), result.dropped,
        )  # fmt: skip
    return result.plan


class Fitness:
    """mAP50 of the detector that a plan leaves, after the repair that costs no training."""

    def __init__(
        self, detector: Detector, graph: ChannelGraph, work: Work, settings: PruneSettings, image_size: int
    ) -> None:
        self.detector, self.graph, self.settings = detector, graph, settings
        self.device = pick_device()
        index = split_index(work.data, "train")
        limit = min(settings.search_images, len(index.files)) or None
        self.evaluate = evaluator(index, val_settings(image_size, 0), limit)
        self.images = _calibration_images(work, min(settings.recalibrate, CALIBRATION_IMAGES))

    def __call__(self, plan: Plan) -> float:
        """Cuts, repairs, measures; the detector itself stays as it is."""
        whole = absorb_offsets(self.detector, self.graph, plan) if self.settings.absorb else self.detector
        smaller = cut(whole, self.graph, plan).to(self.device)
        reestimate_batchnorm_(smaller, self._batches(), share=self.settings.recalibrate_share)
        return float(self.evaluate(smaller).mAP50)

    def _batches(self) -> Iterator[Tensor]:
        """The calibration images as float32 [B, 3, H, W] in 0..1 on the device."""
        for batch in self.images:
            images = batch.to(self.device).float().div_(255)
            yield images.contiguous(memory_format=torch.channels_last)


def _calibration_images(work: Work, count: int) -> list[Tensor]:
    """Batches of equal size of training images, uint8, augmented as in the training, which the statistics stand for."""
    if count == 0:
        return []
    batches: list[Tensor] = []
    for batch in work.images(count, Augmentation.from_hyp(dataclasses.asdict(Hyp()))).epoch(0):
        if batches and len(batch.images) != len(batches[0]):
            break
        batches.append(batch.images)
        if sum(map(len, batches)) + len(batch.images) > count:
            break
    return batches
