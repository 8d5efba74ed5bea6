"""Healing: trains a cut network for minutes to reproduce the outputs of the whole one, on images without labels."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateur.checkpoints.pace import NOTES, HealingPace, notes_of
from secateur.distillation.held_out import HeldOut
from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.family import family_of
from secateur.families.reading import Reading, Split
from secateur.files import write_json
from secateur.networks.checkpoint import Checkpoint, HistoryEntry, save_checkpoint
from secateur.scores import Scores
from secateur.sparsity.hold import HoldMasks
from secateur.terminal.progress import duration
from secateur.training.batches import Batches, BatchLike
from secateur.training.batchnorm import HoldNorms
from secateur.training.distributed import join_processes, of_first, rank_and_world, wait_for_all
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.loop import FitResult, fit
from secateur.training.optimization.open_end import OpenEnd
from secateur.training.session import TrainingKind
from secateur.training.settings import TrainSettings
from secateur.training.state import TrainingIdentity, has_state

LOG = logging.getLogger("secateur")
PIECE = 20
"""Maximum number of steps between two evaluations on the held-out images, which is an epoch of the training loop."""
MOST_STEPS = 100_000
"""Maximum number of steps without a time limit."""
PATIENCE = 8
"""Number of evaluations without a lower loss after which healing stops."""
HELD_OUT_SHARE, HELD_OUT_LEAST, HELD_OUT_MOST = 0.1, 8, 64
WARMUP_STEPS = 10
FEWEST = 16
"""Minimum number of images for training."""
UNLABELLED = "set only its images (--images), because healing reads no labels"


class Pieces:
    """Batches of repeated passes through the images, in pieces of `steps` batches, which `fit` treats as epochs.

    `epoch` depends only on its arguments, as the loop requires.
    """

    def __init__(self, batches: Batches, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        """Batches per piece."""
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchLike]:
        """Batches of one piece from index `start`."""
        place, end = epoch * self.steps + start, (epoch + 1) * self.steps
        while place < end:
            number, first = divmod(place, len(self.batches))
            for batch in self.batches.epoch(number, first):
                yield batch
                place += 1
                if place == end:
                    return


def check_healing(student: Checkpoint, teacher: Checkpoint | None, context: Context, name: str = "") -> None:
    """Checks for errors before a healing: no images, too few images, other classes, an unsuitable teacher.

    Raises:
        UserError: there is such an error.
    """
    family = family_of(student)
    family.require("split", "healed")
    context = context.known_to(student, otherwise=UNLABELLED)
    divided(family.split_for(student, context.require_images("Healing"), "train", objects=False), context.seed)
    if teacher is not None:
        family.check_teacher(student, teacher, name)


def heal(start: Checkpoint, teacher: Checkpoint, context: Context, settings: HealSettings, folder: Path) -> FitResult:
    """Trains `start` to reproduce the outputs of `teacher` on the training images of the context, without labels.

    The loss is the imitation loss of the family on outputs, plus the channel-standardised difference of the inputs of
    the head, on augmented images. Batch norms learn new statistics during training, or keep theirs. The moving average
    is saved. The result is the piece with the lowest loss on held-out images, or `start` itself if no piece has a lower
    loss. Several processes share each batch.

    Args:
        start: cut from the teacher, or at least of the same family, with the same classes and levels.
        folder: folder for results.csv, weights/best and weights/last, notes (`pace.NOTES`), and the state for resuming.

    Raises:
        UserError: there are no images or too few, the data set has other classes, or the teacher is unsuitable.
    """
    began, family = time.monotonic(), family_of(start)
    family.require("split", "healed")
    data = context.known_to(start, otherwise=UNLABELLED).require_images("Healing")
    family.check_teacher(start, teacher)
    if rank_and_world()[1] > 1:
        join_processes(context.device)
    network, whole = start.build(), teacher.build()
    split = family.split_for(network, data, "train", objects=False)
    learned, held_out = divided(split, context.seed)
    train = train_settings(family.healing.filled(settings), context, len(learned))
    hyp = dataclasses.replace(train.hyp, mosaic=family.healing.mosaic)
    train = dataclasses.replace(train, hyp=hyp.completed(family.hyp))
    batches, piece = batches_of(learned, train, start, context), min(settings.most_steps(PIECE), PIECE)
    imitate = family.imitation(settings, network, start, teacher, train)
    measure = HeldOut(whole.to(context.device), imitate.compare, plain_images(held_out, start, context))
    before = measure(start.build().to(context.device).eval())
    settings = family.healing.filled(settings, of_first(before.value))
    train = dataclasses.replace(train, hyp=dataclasses.replace(train.hyp, lr0=settings.heal_lr))
    entry = HistoryEntry(verb="heal", settings=dataclasses.asdict(settings), metrics={}, cost={})
    like = dataclasses.replace(start, history=(*start.history, entry), image_size=context.image_size)
    hooks: list[Hook] = [imitate, *([HoldMasks(start.masks)] if start.masks else [])]
    hooks += [HoldNorms()] if settings.heal_norms == "keep" else []
    end = None
    if settings.heal_steps == "auto":
        minutes = settings.heal_minutes
        pace = HealingPace.of(folder, network, imitate, batches, family, context.device, minutes=minutes, most=PIECE)
        if rank_and_world()[0] == 0:
            LOG.info("%s", pace.expected(minutes, before.value))
        piece = pace.piece
        end = OpenEnd(minutes, MOST_STEPS // piece, began, stretch=-(-PIECE // piece))
        hooks.append(end)
    result = fit(
        network,
        Pieces(batches, piece),
        in_pieces(train, settings, piece),
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
    if of_first(result.best_fitness <= before.fitness):
        result = unhealed(result, like, before)
    note(folder, result, before, piece, end)
    wait_for_all()  # until all files are written
    return result


def note(folder: Path, result: FitResult, before: Scores, piece: int, end: OpenEnd | None) -> None:
    """Logs and records the result of a healing once.

    Args:
        piece: steps per piece.
        end: the hook that decided the end; None for a fixed number of steps.
    """
    known = notes_of(folder)
    if "reason" in known or rank_and_world()[0] != 0:
        return
    steps = result.epochs * piece
    name, after = before.figure, result.metrics[before.figure]
    known |= {"steps": steps, "reason": end.reason if end else "steps", "before": before.value, "after": after}
    if end is not None:
        known["seconds"] = round(end.seconds, 1)
        took = f"{duration(end.seconds)}, stopped because {end.ending()}"
        LOG.info("Healing took %d steps, %s; %s %.4f -> %.4f.", steps, took, name, before.value, after)
    write_json(folder / NOTES, known)


def unhealed(result: FitResult, start: Checkpoint, before: Scores) -> FitResult:
    """The result of a healing without improvement: the start is kept."""
    LOG.warning(
        "Healing did not reduce the held-out loss (%.4f), so the network from before healing is kept. Try "
        "a lower --heal-lr, or more images.",
        before.value,
    )
    if rank_and_world()[0] == 0:
        save_checkpoint(start, result.best)
    return dataclasses.replace(result, best_epoch=-1, metrics=before.to_dict())


def divided(split: Split, seed: int) -> tuple[Split, Split]:
    """Images for training, and a few held-out images.

    Raises:
        UserError: there are too few.
    """
    count = len(split)
    if count < FEWEST:
        raise UserError(f"Healing needs at least {FEWEST} images, but there are {count}. Add more images.")
    order = np.random.default_rng((seed, 7)).permutation(count)
    out = int(np.clip(round(HELD_OUT_SHARE * count), HELD_OUT_LEAST, HELD_OUT_MOST))
    return split.select(np.sort(order[out:]).tolist()), split.select(np.sort(order[:out]).tolist())


def train_settings(settings: HealSettings, context: Context, images: int) -> TrainSettings:
    """Training options for this number of steps.

    Args:
        settings: settings without open values.
    """
    batch, (_, world) = min(settings.heal_batch, images), rank_and_world()
    if batch % world:
        raise UserError(f"--heal-batch {batch} must be a multiple of the number of processes, {world}.")
    hyp = Hyp(
        lr0=settings.heal_lr,
        lrf=0.02,
        momentum=0.9,
        weight_decay=0.0,
        warmup_momentum=0.9,
        warmup_bias_lr=0.0,
    )
    settled = settings.heal_steps != "auto"
    train = TrainSettings(
        batch_size=batch,
        nominal_batch=batch,
        image_size=context.image_size,
        optimizer="AdamW",
        cos_lr=True,
        patience=PATIENCE if settled else 0,
        seed=context.seed,
        workers=context.workers,
        warmup_minimum=min(WARMUP_STEPS, settings.most_steps(MOST_STEPS)),
        hyp=hyp,
    )
    return in_pieces(train, settings, min(PIECE, settings.most_steps(PIECE)))


def in_pieces(train: TrainSettings, settings: HealSettings, piece: int) -> TrainSettings:
    """The options for pieces of this number of steps, which the loop treats as epochs."""
    hyp = dataclasses.replace(train.hyp, warmup_epochs=WARMUP_STEPS / piece)
    return dataclasses.replace(train, epochs=-(-settings.most_steps(MOST_STEPS) // piece), hyp=hyp)


def batches_of(split: Split, train: TrainSettings, start: Checkpoint, context: Context) -> Batches:
    """The share of this process in the shuffled images, augmented as in training."""
    rank, world = rank_and_world()
    return split.shuffled(
        Reading(
            train.image_size,
            train.batch_size // world,
            seed=train.seed,
            workers=context.workers,
            channels=start.architecture.channels,
            augmentation=train.hyp,
            rank=rank,
            world=world,
            pin=context.device.type == "cuda",
        )
    )


def plain_images(split: Split, start: Checkpoint, context: Context) -> Iterator[Tensor]:
    """The images of a split without augmentation, prepared, in batches [B, C, H, W] on the device."""
    prepare, channels = family_of(start).prepare, start.architecture.channels
    reading = Reading(context.image_size, context.batch_size, seed=context.seed, channels=channels)
    for batch in split.ordered(reading):
        images = prepare(batch.images.to(context.device, non_blocking=True))
        yield images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
