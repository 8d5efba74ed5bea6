"""Healing: a cut detector learns from the whole one, on pictures without labels, in minutes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.compression.measuring import split_index
from secateur.compression.training import check_trainable
from secateur.data.augment import Augmentation
from secateur.data.batches import EvaluationBatches, TrainBatches, train_batches
from secateur.data.dataset import Batch, DetectionDataset
from secateur.data.index import Index, content_signature
from secateur.distillation.held_out import HeldOut
from secateur.distillation.imitate import Imitate
from secateur.distillation.pairing import check_pair, neck_channels
from secateur.distillation.settings import DistillSettings, HealSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.yolov5.architecture import YOLOv5
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint, Stage
from secateur.sparsity.hold import HoldMasks
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.loop import FitResult, fit
from secateur.training.session import Course
from secateur.training.settings import TrainSettings
from secateur.training.state import Subject, has_state

PIECE = 20
"""Steps between two looks at the pictures that are held out; an epoch of the loop."""
PATIENCE = 8
"""Looks without a lower loss after which it stops."""
HELD_OUT_SHARE, HELD_OUT_LEAST, HELD_OUT_MOST = 0.1, 8, 64
WARMUP_STEPS = 10
FEWEST = 16
"""Pictures under which there is nothing to learn from."""
UNLABELLED = "give its images alone (--images): healing reads no labels"


class Pieces:
    """Batches of pass after pass through the pictures, in pieces of `steps` batches: what `fit` calls epochs.

    `epoch` is a pure function of its arguments, as the loop asks for.
    """

    def __init__(self, batches: TrainBatches, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        """Batches a piece."""
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of one piece from number `start` on."""
        place, end = epoch * self.steps + start, (epoch + 1) * self.steps
        while place < end:
            number, first = divmod(place, len(self.batches))
            for batch in self.batches.epoch(number, first):
                yield batch
                place += 1
                if place == end:
                    return


def check_teacher(student: Checkpoint, teacher: Checkpoint, name: str = "") -> None:
    """Refuses a teacher that answers in other words than the student.

    Raises:
        UserError: it is of another family, or differs in classes, levels or anchors.
    """
    title = f"The teacher {name}" if name else "The teacher"
    if not isinstance(student.architecture, YOLOv5) or not isinstance(teacher.architecture, YOLOv5):
        raise UserError(
            f"{title} is {teacher.architecture} and the student {student.architecture}; healing works between YOLOv5 "
            "detectors: give the detector that the student was cut from."
        )
    check_pair(student.build(), teacher.build(), name)


def check_healing(student: Checkpoint, teacher: Checkpoint | None, context: Context, name: str = "") -> None:
    """Looks for what would stop a healing: no pictures, too few, other classes, a teacher that does not fit.

    Raises:
        UserError: naming it.
    """
    check_trainable(student, "healed")
    context = context.known_to(student, otherwise=UNLABELLED)
    divided(split_index(context.require_pictures("Healing"), "train", objects=False), context.seed)
    if teacher is not None:
        check_teacher(student, teacher, name)


def heal(start: Checkpoint, teacher: Checkpoint, context: Context, settings: HealSettings, folder: Path) -> FitResult:
    """Trains `start` to answer as `teacher` does on the context's training pictures, without labels.

    One loop trains all: the loss is `raw` imitation of the outputs plus the channel-standardised difference of what
    feeds the head, on mosaics; norms learn their statistics anew on the way; the moving average is what is kept. The
    piece with the lowest loss on pictures that are held out counts.

    Args:
        start: cut from the teacher, or at least with its classes, levels and anchors.
        folder: results.csv, weights/best and weights/last, and the state from which a killed healing goes on.

    Raises:
        UserError: no pictures or too few, a data set of other classes, or a teacher that does not fit.
    """
    data = context.known_to(start, otherwise=UNLABELLED).require_pictures("Healing")
    check_teacher(start, teacher)
    detector, whole = start.build(), teacher.build()
    assert isinstance(detector, Detector) and isinstance(whole, Detector)
    index = split_index(data, "train", objects=False)
    pictures, held_out = divided(index, context.seed)
    train = train_settings(settings, context, len(pictures.files))
    stage = Stage(verb="heal", settings=dataclasses.asdict(settings), metrics={}, cost={})
    methods = "raw+features" if settings.heal_features and comparable(start, teacher) else "raw"
    imitate = Imitate(
        DistillSettings(distill=methods, distill_feature_weight=settings.heal_features),
        detector,
        whole,
        train.hyp,
        context.image_size,
        plan=start.plan,
        teacher_plan=teacher.plan,
    )
    hooks: list[Hook] = [imitate, *([HoldMasks(start.masks)] if start.masks else [])]
    channels = start.architecture.channels
    measure = HeldOut(whole.to(context.device), plain(held_out, context, channels=channels), context.image_size)
    steps = min(PIECE, settings.heal_steps)
    return fit(
        detector,
        Pieces(batches_of(pictures, train, context, channels=channels), steps),
        train,
        folder=folder,
        hooks=hooks,
        terms=[imitate],
        evaluate=measure,
        resume=has_state(folder),
        like=dataclasses.replace(start, history=(*start.history, stage), image_size=context.image_size),
        course=Course(labels=False, average_decay=0.98, average_ramp=20.0),
        subject=Subject(start.names, {"the images": content_signature(index)}, start.names),
    )


def divided(index: Index, seed: int) -> tuple[Index, Index]:
    """Pictures to learn from, and a few that are held out.

    Raises:
        UserError: there are too few.
    """
    count = len(index.files)
    if count < FEWEST:
        raise UserError(f"Healing needs at least {FEWEST} pictures, and there are {count}; give more.")
    order = np.random.default_rng((seed, 7)).permutation(count)
    out = int(np.clip(round(HELD_OUT_SHARE * count), HELD_OUT_LEAST, HELD_OUT_MOST))
    return index.select(np.sort(order[out:])), index.select(np.sort(order[:out]))


def train_settings(settings: HealSettings, context: Context, pictures: int) -> TrainSettings:
    """The options of the one loop for so many steps."""
    steps = min(PIECE, settings.heal_steps)
    batch = min(settings.heal_batch, pictures)
    hyp = Hyp(
        lr0=settings.heal_lr,
        lrf=0.02,
        momentum=0.9,
        weight_decay=0.0,
        warmup_epochs=WARMUP_STEPS / steps,
        warmup_momentum=0.9,
        warmup_bias_lr=0.0,
    )
    return TrainSettings(
        epochs=-(-settings.heal_steps // steps),
        batch_size=batch,
        nominal_batch=batch,
        image_size=context.image_size,
        optimizer="AdamW",
        cos_lr=True,
        patience=PATIENCE,
        seed=context.seed,
        workers=context.workers,
        autoanchor=False,
        warmup_minimum=min(WARMUP_STEPS, settings.heal_steps),
        hyp=hyp,
    )


def batches_of(index: Index, train: TrainSettings, context: Context, *, channels: int = 3) -> TrainBatches:
    """Shuffled mosaics of the pictures."""
    dataset = DetectionDataset(
        index,
        train.image_size,
        augmentation=Augmentation.from_hyp(dataclasses.asdict(train.hyp)),
        batch_size=train.batch_size,
        seed=train.seed,
        channels=channels,
    )
    return train_batches(
        dataset, train.batch_size, seed=train.seed, workers=context.workers, pin=context.device.type == "cuda"
    )


def plain(index: Index, context: Context, *, channels: int = 3) -> Iterator[Any]:
    """The pictures of an index letterboxed, in batches [B, C, H, W] in 0..1 on the device."""
    dataset = DetectionDataset(
        index, context.image_size, batch_size=context.batch_size, seed=context.seed, channels=channels
    )
    for batch in EvaluationBatches(dataset, context.batch_size, workers=0):
        images = batch.images.to(context.device, non_blocking=True).float().div_(255)
        yield images.contiguous(memory_format=torch.channels_last)


def comparable(start: Checkpoint, teacher: Checkpoint) -> bool:
    """Whether the channels of the two that feed the head can be told apart one by one."""
    student, whole = start.build(), teacher.build()
    assert isinstance(student, Detector) and isinstance(whole, Detector)
    try:
        neck_channels(student, whole, start.plan, teacher.plan)
    except UserError:
        return False
    return True
