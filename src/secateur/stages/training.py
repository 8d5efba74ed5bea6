"""The verbs that train: dense training, sparse training and fine-tuning are one function with other hooks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateur.data.augment import Augmentation
from secateur.data.batches import TrainBatches, train_batches
from secateur.data.config import DataConfig
from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index
from secateur.detector.checkpoint import Checkpoint, Stage
from secateur.errors import UserError
from secateur.evaluation.validate import check_image_size
from secateur.pruning.graph import trace
from secateur.sparsity.gamma import GammaOptions, GammaPenalty
from secateur.stages.evaluation import evaluator, split_index, val_settings
from secateur.stages.options import SparsifySettings
from secateur.stages.pictures import draw_data, draw_results
from secateur.training.hooks import Hook
from secateur.training.loop import FitResult, fit
from secateur.training.settings import TrainSettings


def processes() -> tuple[int, int]:
    """Rank and number of the processes that torchrun started (0, 1 without it)."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


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
        resume=resume and (folder / "state.pt").exists(),
        like=dataclasses.replace(start, history=(*start.history, stage)),
        index=None if settings.noautoanchor else train_index,
    )
    if processes()[0] == 0:
        draw_results(folder)
    return result


def gamma_hook(start: Checkpoint, options: SparsifySettings) -> GammaPenalty:
    """The penalty on the scales of all channels that can be pruned, and of no others."""
    graph = trace(start.detector())
    prunable = {name: units >= 0 for name, units in graph.norms.items() if (units >= 0).any()}
    return GammaPenalty(
        GammaOptions(rate=options.rate, schedule=options.schedule, mode=options.mode, beta=options.beta), prunable
    )


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
        hooks=[gamma_hook(start, sparsify)],
        extra=dataclasses.asdict(sparsify),
        resume=resume,
    )
