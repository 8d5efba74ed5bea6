"""Healing: a cut network learns from the whole one, on images without labels, in minutes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateur.distillation.held_out import HeldOut
from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.family import family_of
from secateur.families.reading import Reading, Split
from secateur.networks.checkpoint import Checkpoint, HistoryEntry, save_checkpoint
from secateur.scores import Scores
from secateur.sparsity.hold import HoldMasks
from secateur.training.batches import Batches, BatchLike
from secateur.training.batchnorm import HoldNorms
from secateur.training.distributed import rank_and_world
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.loop import FitResult, fit
from secateur.training.session import TrainingKind
from secateur.training.settings import TrainSettings
from secateur.training.state import TrainingIdentity, has_state

LOG = logging.getLogger("secateur")
PIECE = 20
"""Steps between two looks at the images that are held out; an epoch of the loop."""
PATIENCE = 8
"""Looks without a lower loss after which it stops."""
HELD_OUT_SHARE, HELD_OUT_LEAST, HELD_OUT_MOST = 0.1, 8, 64
WARMUP_STEPS = 10
FEWEST = 16
"""Images under which there is nothing to learn from."""
UNLABELLED = "give its images alone (--images): healing reads no labels"


class Pieces:
    """Batches of pass after pass through the images, in pieces of `steps` batches: what `fit` calls epochs.

    `epoch` is a pure function of its arguments, as the loop asks for.
    """

    def __init__(self, batches: Batches, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        """Batches a piece."""
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchLike]:
        """Batches of one piece from number `start` on."""
        place, end = epoch * self.steps + start, (epoch + 1) * self.steps
        while place < end:
            number, first = divmod(place, len(self.batches))
            for batch in self.batches.epoch(number, first):
                yield batch
                place += 1
                if place == end:
                    return


def check_healing(student: Checkpoint, teacher: Checkpoint | None, context: Context, name: str = "") -> None:
    """Looks for what would stop a healing: no images, too few, other classes, a teacher that does not fit.

    Raises:
        UserError: naming it.
    """
    family = family_of(student)
    family.require("split", "healed")
    context = context.known_to(student, otherwise=UNLABELLED)
    divided(family.split_for(student, context.require_images("Healing"), "train", objects=False), context.seed)
    if teacher is not None:
        family.check_teacher(student, teacher, name)


def heal(start: Checkpoint, teacher: Checkpoint, context: Context, settings: HealSettings, folder: Path) -> FitResult:
    """Trains `start` to answer as `teacher` does on the context's training images, without labels.

    One loop trains all: the loss is the family's imitation of the answers plus the channel-standardised difference of
    what feeds the head, on augmented images; norms learn their statistics anew on the way, or keep them; the moving
    average is what is kept. The piece with the lowest loss on images that are held out counts, and where none has a
    lower one than `start`, the tensors of `start` do.

    Args:
        start: cut from the teacher, or at least of its family, with its classes and levels.
        folder: results.csv, weights/best and weights/last, and the state from which a killed healing goes on.

    Raises:
        UserError: no images or too few, a data set of other classes, or a teacher that does not fit.
    """
    family = family_of(start)
    family.require("split", "healed")
    data = context.known_to(start, otherwise=UNLABELLED).require_images("Healing")
    family.check_teacher(start, teacher)
    network, whole = start.build(), teacher.build()
    split = family.split_for(network, data, "train", objects=False)
    learned, held_out = divided(split, context.seed)
    settings = family.healing.filled(settings)
    train = train_settings(settings, context, len(learned))
    hyp = dataclasses.replace(train.hyp, mosaic=family.healing.mosaic)
    train = dataclasses.replace(train, hyp=hyp.completed(family.hyp))
    entry = HistoryEntry(verb="heal", settings=dataclasses.asdict(settings), metrics={}, cost={})
    imitate = family.imitation(settings, network, start, teacher, train)
    hooks: list[Hook] = [imitate, *([HoldMasks(start.masks)] if start.masks else [])]
    hooks += [HoldNorms()] if settings.heal_norms == "keep" else []
    measure = HeldOut(whole.to(context.device), imitate.compare, plain_images(held_out, start, context))
    like = dataclasses.replace(start, history=(*start.history, entry), image_size=context.image_size)
    before = measure(start.build().to(context.device).eval())
    result = fit(
        network,
        Pieces(batches_of(learned, train, start, context), min(PIECE, settings.heal_steps)),
        train,
        task=family,
        folder=folder,
        hooks=hooks,
        terms=[imitate],
        evaluate=measure,
        resume=has_state(folder),
        like=like,
        kind=TrainingKind(labels=False, average_decay=0.98, average_ramp=20.0),
        identity=TrainingIdentity(start.names, {"the images": split.signature()}, start.names),
    )
    return unhealed(result, like, before) if result.best_fitness <= before.fitness else result


def unhealed(result: FitResult, start: Checkpoint, before: Scores) -> FitResult:
    """The result of a healing that found nothing better: what it started from is what is kept."""
    LOG.warning(
        "Healing found nothing nearer to the teacher than what it started from (held-out loss %.4f): that is kept; try "
        "a lower --heal-lr, or more images.",
        before.value,
    )
    if rank_and_world()[0] == 0:
        save_checkpoint(start, result.best)
    return dataclasses.replace(result, best_epoch=-1, metrics=before.to_dict())


def divided(split: Split, seed: int) -> tuple[Split, Split]:
    """Images to learn from, and a few that are held out.

    Raises:
        UserError: there are too few.
    """
    count = len(split)
    if count < FEWEST:
        raise UserError(f"Healing needs at least {FEWEST} images, and there are {count}; give more.")
    order = np.random.default_rng((seed, 7)).permutation(count)
    out = int(np.clip(round(HELD_OUT_SHARE * count), HELD_OUT_LEAST, HELD_OUT_MOST))
    return split.select(np.sort(order[out:]).tolist()), split.select(np.sort(order[:out]).tolist())


def train_settings(settings: HealSettings, context: Context, images: int) -> TrainSettings:
    """The options of the one loop for so many steps.

    Args:
        settings: with nothing left open.
    """
    steps = min(PIECE, settings.heal_steps)
    batch = min(settings.heal_batch, images)
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
        warmup_minimum=min(WARMUP_STEPS, settings.heal_steps),
        hyp=hyp,
    )


def batches_of(split: Split, train: TrainSettings, start: Checkpoint, context: Context) -> Batches:
    """Shuffled images, augmented as a training shows them."""
    return split.shuffled(
        Reading(
            train.image_size,
            train.batch_size,
            seed=train.seed,
            workers=context.workers,
            channels=start.architecture.channels,
            augmentation=train.hyp,
            pin=context.device.type == "cuda",
        )
    )


def plain_images(split: Split, start: Checkpoint, context: Context) -> Iterator[Tensor]:
    """The images of a split as they are, prepared, in batches [B, C, H, W] on the device."""
    prepare, channels = family_of(start).prepare, start.architecture.channels
    reading = Reading(context.image_size, context.batch_size, seed=context.seed, channels=channels)
    for batch in split.ordered(reading):
        images = prepare(batch.images.to(context.device, non_blocking=True))
        yield images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
