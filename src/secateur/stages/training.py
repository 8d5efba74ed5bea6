"""The verbs that train: dense training, sparse training and fine-tuning are one function with other hooks."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path

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
from secateur.stages.evaluation import evaluator, split_index, val_settings
from secateur.stages.methods import Methods
from secateur.stages.pictures import draw_data, draw_results
from secateur.training.loop import FitResult, fit
from secateur.training.settings import TrainSettings
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
    methods: Methods | None = None,
    dense: Checkpoint | None = None,
    resume: bool = False,
) -> FitResult:
    """Trains from a checkpoint; writes weights/best and weights/last, results.csv and plots into `folder`.

    Args:
        verb: name of the stage in the checkpoint's history.
        methods: what acts besides the plain loop.
        dense: teacher of a distillation for which no other is named.
        resume: go on from the state in `folder` where there is one.
    """
    methods = methods or Methods()
    detector = start.detector()
    stride = int(max(detector.strides))
    settings = dataclasses.replace(settings, image_size=check_image_size(settings.image_size, stride))
    train_index = split_index(data, "train", single_cls=settings.single_cls)
    val_index = split_index(data, "val", single_cls=settings.single_cls)
    batches = training_batches(train_index, settings, stride)
    if processes()[0] == 0:
        draw_data(folder, train_index, batches, data.names)
    stage = Stage(verb=verb, settings=settings.to_dict() | methods.record(), metrics={}, cost={})
    hooks = methods.hooks(start, settings, len(train_index.files))
    terms, more = methods.distillation(start, detector, settings, dense)
    result = fit(
        detector,
        batches,
        settings,
        folder=folder,
        hooks=[*more, *hooks],
        terms=terms,
        evaluate=evaluator(val_index, val_settings(settings.image_size, 0, single_cls=settings.single_cls)),
        resume=resume and has_state(folder),
        like=dataclasses.replace(start, history=(*start.history, stage)),
        index=None if settings.noautoanchor else train_index,
    )
    if processes()[0] == 0:
        draw_results(folder)
    return result
