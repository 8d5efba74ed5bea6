"""The verbs that train: dense training, sparse training and fine-tuning are one function with other hooks."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from secateur.data.augment import Augmentation
from secateur.data.batches import TrainBatches, train_batches
from secateur.data.config import DataConfig
from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index
from secateur.detector.checkpoint import Checkpoint, Stage
from secateur.errors import UserError
from secateur.evaluation.validate import check_image_size
from secateur.pruning.graph import trace
from secateur.sparsity.gamma import GammaOptions, GammaPenalty, rate_at
from secateur.sparsity.settings import SparsifySettings
from secateur.stages.evaluation import evaluator, split_index, val_settings
from secateur.stages.pictures import draw_data, draw_results
from secateur.training.hooks import Hook
from secateur.training.loop import FitResult, fit
from secateur.training.schedules import Schedule
from secateur.training.settings import NOMINAL_BATCH, TrainSettings
from secateur.training.state import has_state

LOG = logging.getLogger("secateur")


def processes() -> tuple[int, int]:
    """Rank and number of the processes that torchrun started (0, 1 without it)."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def once(make: Callable[[], str]) -> str:
    """What `make` gives on the first process, known to all: several processes must not each make a run folder."""
    rank, world = processes()
    if world == 1:
        return make()
    # Opens the process group that the training goes on with.
    PartialState(cpu=not torch.cuda.is_available())
    shared = [make() if rank == 0 else None]
    broadcast_object_list(shared)
    return str(shared[0])


def training_batches(index: Index, settings: TrainSettings, stride: int) -> TrainBatches:
    """Shuffled, augmented batches of this process's share of an index."""
    rank, world = processes()
    if settings.batch_size % world:
        raise UserError(f"--batch-size {settings.batch_size} is not a multiple of the {world} processes.")
    dataset = DetectionDataset(
        index,
        settings.image_size,
        augmentation=Augmentation.from_hyp(dataclasses.asdict(settings.hyp)),
        rectangular=settings.rect,
        pad=0.0,
        batch_size=settings.batch_size,
        stride=stride,
        seed=settings.seed,
    )
    return train_batches(
        dataset, settings.batch_size // world, seed=settings.seed, workers=settings.workers, rank=rank, world=world
    )


def train_stage(
    start: Checkpoint,
    data: DataConfig,
    settings: TrainSettings,
    folder: Path,
    *,
    verb: str = "train",
    hooks: Sequence[Hook] = (),
    extra: dict[str, Any] | None = None,
    resume: bool = False,
) -> FitResult:
    """Trains from a checkpoint; writes weights/best and weights/last, results.csv and plots into `folder`.

    Args:
        verb: name of the stage in the checkpoint's history.
        hooks: methods that act while training.
        extra: settings of the method, for the history.
        resume: go on from the state in `folder` where there is one.
    """
    detector = start.detector()
    stride = int(max(detector.strides))
    settings = dataclasses.replace(settings, image_size=check_image_size(settings.image_size, stride))
    train_index = split_index(data, "train", single_cls=settings.single_cls)
    val_index = split_index(data, "val", single_cls=settings.single_cls)
    batches = training_batches(train_index, settings, stride)
    if processes()[0] == 0:
        draw_data(folder, train_index, batches, data.names)
    stage = Stage(verb=verb, settings=settings.to_dict() | (extra or {}), metrics={}, cost={})
    result = fit(
        detector,
        batches,
        settings,
        folder=folder,
        hooks=hooks,
        evaluate=evaluator(val_index, val_settings(settings.image_size, 0, single_cls=settings.single_cls)),
        resume=resume and has_state(folder),
        like=dataclasses.replace(start, history=(*start.history, stage)),
        index=None if settings.noautoanchor else train_index,
    )
    if processes()[0] == 0:
        draw_results(folder)
    return result


def gamma_hook(start: Checkpoint, options: SparsifySettings, settings: TrainSettings, images: int) -> GammaPenalty:
    """The penalty on the scales of all channels that can be pruned, and of no others.

    Args:
        images: training images, from which the length of the training and so the automatic rate follow.
    """
    detector = start.detector()
    graph = trace(detector)
    prunable = {name: torch.from_numpy(units >= 0) for name, units in graph.norms.items() if (units >= 0).any()}
    rate = options.rate
    if rate == 0:
        gammas = torch.cat(
            [detector.get_parameter(f"{name}.weight").detach()[mask].abs() for name, mask in prunable.items()]
        )
        rate = automatic_rate(float(gammas.median()), options, settings, images)
        LOG.info("Sparsity rate %.3g: the penalty alone would move a scale by %.2f medians", rate, options.reach)
    return GammaPenalty(GammaOptions(rate, options.mode, options.schedule, options.beta), prunable)


def automatic_rate(gamma: float, options: SparsifySettings, settings: TrainSettings, images: int) -> float:
    """The rate whose pull alone, summed over all steps, moves a scale by `gamma` times `options.reach`.

    With SGD a constant pull s moves a scale by lr s / (1 - momentum) a step, so the same s that empties a network in
    300 epochs of COCO does nothing in 50 epochs of 200 images: the rate has to follow from the length of the training.
    Adam normalises the pull away, so there the figure means something for `mode="proximal"` only.
    """
    schedule = Schedule(
        settings.hyp, settings.epochs, math.ceil(images / settings.batch_size), settings.batch_size, settings.cos_lr
    )
    unit = GammaOptions(1.0, options.mode, options.schedule)
    momentum = settings.hyp.momentum if options.mode == "subgradient" and settings.optimizer == "SGD" else 0.0
    travel = 0.0
    for iteration in range(schedule.batches * settings.epochs):
        epoch = iteration // schedule.batches
        # The penalty of a step is scaled with its images, so every batch contributes its share of 64.
        share = settings.batch_size / NOMINAL_BATCH
        travel += schedule.learning_rates(iteration, epoch)[1] * rate_at(unit, epoch, settings.epochs) * share
    return gamma * options.reach * (1 - momentum) / travel


def sparse_train(
    start: Checkpoint,
    data: DataConfig,
    settings: TrainSettings,
    sparsify: SparsifySettings,
    folder: Path,
    *,
    resume: bool = False,
) -> FitResult:
    """Training with the L1 penalty on prunable BatchNorm scales (Liu et al., ICCV 2017)."""
    return train_stage(
        start,
        data,
        settings,
        folder,
        verb="sparsify",
        hooks=[gamma_hook(start, sparsify, settings, len(split_index(data, "train").files))],
        extra=dataclasses.asdict(sparsify),
        resume=resume,
    )
