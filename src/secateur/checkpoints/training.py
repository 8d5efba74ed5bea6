"""Trains a checkpoint on a data set. Dense, sparse and fine-tuning are the same function with different methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from secateur.data.batches import TrainBatches
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.context import Context, as_one_class, known_data
from secateur.families.detection.split import DetectionSplit
from secateur.families.evaluation import evaluator, val_settings
from secateur.families.family import Family, family_of
from secateur.families.reading import DataSet, Reading, Split
from secateur.families.starting import for_classes, keeps_its_head
from secateur.families.teacher import find_teacher, note_other_names
from secateur.families.training import OwnTraining
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.report.run_folder_plots import draw_data, draw_results
from secateur.sparsity.hold import HoldMasks
from secateur.sparsity.penalties import check_penalties, penalty_hooks
from secateur.sparsity.settings import SparsifySettings, WeightSettings
from secateur.sparsity.weights import WeightPruning, check_weight_pruning
from secateur.training.batches import Batches
from secateur.training.distributed import rank_and_world
from secateur.training.hooks import Hook
from secateur.training.loop import FitResult, fit
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings
from secateur.training.state import TrainingIdentity, has_state
from secateur.training.task import check_strides, largest_stride


@dataclass(frozen=True)
class Methods:
    """Methods in addition to the plain loop: weight pruning, distillation and channel penalties; by default none."""

    weights: WeightSettings = field(default_factory=WeightSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    sparsify: SparsifySettings | None = None

    @property
    def prunes_weights(self) -> bool:
        """Whether weights are zeroed, or their zeros held."""
        return self.weights.target_sparsity > 0 or self.weights.lock_zeros

    def check(self, settings: TrainSettings, family: Family) -> None:
        """Checks all names and ranges before anything is written.

        Args:
            family: family of the network.

        Raises:
            UserError: a name is unknown, a pattern cannot reach its target, or the cool-down is as long as the
                training.
        """
        if self.sparsify is not None:
            check_penalties(self.sparsify, settings)
        family.check_distillation(self.distill)
        family.check_fit(settings, self.distill)
        if self.weights.target_sparsity > 0:
            check_weight_pruning(self.weights, settings.epochs)

    def record(self) -> dict[str, Any]:
        """Settings of the methods in use, for the history of a checkpoint."""
        result: dict[str, Any] = {}
        if self.sparsify is not None:
            result |= dataclasses.asdict(self.sparsify)
        if self.prunes_weights:
            result |= dataclasses.asdict(self.weights)
        if self.distill.distill:
            result |= dataclasses.asdict(self.distill)
        return result

    def hooks(self, start: Checkpoint, settings: TrainSettings, images: int) -> list[Hook]:
        """Hooks in order of execution; zeroing of weights is last, so that nothing changes the zeros again.

        Raises:
            UserError: a name is unknown, or settings do not fit the checkpoint.
        """
        hooks: list[Hook] = []
        if self.sparsify is not None:
            hooks += penalty_hooks(start, self.sparsify, settings, images)
        if self.prunes_weights:
            hooks.append(WeightPruning(self.weights, start))
        elif start.masks:
            # Zeros of an earlier weight pruning are always kept.
            hooks.append(HoldMasks(start.masks))
        return hooks

    def teacher(self, start: Checkpoint, dense: Checkpoint | None) -> Checkpoint:
        """The teacher: `--teacher`, `dense`, or the network that `start` was pruned from.

        Raises:
            UserError: there is none.
        """
        teacher = dense
        if teacher is None or self.distill.teacher:
            teacher = find_teacher(self.distill, start, zeroing=self.prunes_weights)
        note_other_names(start, teacher)
        return teacher

    def distillation(
        self, start: Checkpoint, student: nn.Module, settings: TrainSettings, dense: Checkpoint | None
    ) -> tuple[list[Term], list[Hook]]:
        """Loss terms of the distillation, if any, with their hooks."""
        if not self.distill.distill:
            return [], []
        teacher = self.teacher(start, dense)
        imitate = family_of(start).distillation(self.distill, student, start, teacher, settings)
        return [imitate], [imitate]


def training_batches(
    split: Split, settings: TrainSettings, network: nn.Module, context: Context, *, channels: int = 3
) -> Batches:
    """Shuffled, augmented batches of the share of this process in a split, with this number of image channels.

    Raises:
        UserError: the batch size cannot be divided by the number of processes.
    """
    rank, world = rank_and_world()
    if settings.batch_size % world:
        raise UserError(f"--batch-size {settings.batch_size} must be a multiple of the number of processes, {world}.")
    return split.shuffled(
        Reading(
            settings.image_size,
            settings.batch_size // world,
            seed=settings.seed,
            workers=settings.workers,
            channels=channels,
            augmentation=settings.hyp,
            rect=settings.rect,
            stride=largest_stride(network) or 1,
            rank=rank,
            world=world,
            pin=context.device.type == "cuda",
        )
    )


def for_training(start: Checkpoint, data: DataSet, *, single_cls: bool) -> tuple[Checkpoint, DataSet, bool]:
    """A checkpoint and a data set with the same classes, and whether all objects have one class.

    Args:
        single_cls: whether it is requested; a checkpoint that was trained with it is always trained with it.

    Raises:
        UserError: the classes differ in more than their order.
    """
    if single_cls or start.single_cls:
        data = as_one_class(data) if single_cls else known_data(start, data)
        return (start if start.single_cls else for_classes(start, data.names)), data, True
    if not keeps_its_head(start, data.names):
        data = known_data(start, data)
    return for_classes(start, data.names), data, data.one_class


def contents(splits: Mapping[str, Split]) -> dict[str, str]:
    """A description of each split that must not change while a training is interrupted, with a digest."""
    return {f"the {name} images or labels": split.signature() for name, split in splits.items()}


def can_be_trained(checkpoint: Checkpoint) -> bool:
    """Whether there is a loss for networks of this kind."""
    return family_of(checkpoint).knows("loss")


def check_trainable(checkpoint: Checkpoint, done: str) -> None:
    """Checks that the family of a network has a loss and can read data.

    Args:
        done: what would be done with it, for the error message: "trained".

    Raises:
        UserError: it does not; the message names the family and what it lacks.
    """
    for verb in ("loss", "split"):
        family_of(checkpoint).require(verb, done)


def train_checkpoint(
    start: Checkpoint,
    context: Context,
    settings: TrainSettings,
    folder: Path,
    *,
    verb: str = "train",
    methods: Methods | None = None,
) -> FitResult:
    """Trains from a checkpoint; writes weights/best and weights/last, results.csv and plots to `folder`.

    If `folder` holds the state of an interrupted training, that training is resumed. If the head has the classes of the
    data set in another order, its outputs are reordered. With `single_cls` the head has one class.

    Args:
        context: the data set, and the dense detector, which is the default teacher.
        verb: name of the history entry.
        methods: methods in addition to the plain loop.

    Raises:
        UserError: there is no data set, it is damaged or has other classes, methods do not fit the checkpoint, or a
            training to resume had other classes or data.
    """
    check_trainable(start, "trained")
    methods, given, family = methods or Methods(), start, family_of(start)
    start, data, single = for_training(start, context.require_data("A training"), single_cls=settings.single_cls)
    network, hyp = start.build(), settings.hyp.completed(family.hyp)
    settings = dataclasses.replace(settings, image_size=context.image_size, single_cls=single, hyp=hyp)
    check_strides(network, settings)
    splits = {name: family.split(data, name) for name in ("train", "val")}
    entry = HistoryEntry(verb=verb, settings=settings.to_dict() | methods.record(), metrics={}, cost={})
    hooks = methods.hooks(start, settings, len(splits["train"]))
    like = dataclasses.replace(start, history=(*start.history, entry), image_size=settings.image_size)
    identity = TrainingIdentity(start.names, contents(splits), given.names)
    if family.knows("fit"):
        teacher = methods.teacher(start, context.dense) if methods.distill.distill else None
        return family.fit(OwnTraining(like, data, splits, settings, folder, hooks, teacher, identity))
    batches = training_batches(splits["train"], settings, network, context, channels=start.architecture.channels)
    rank, _ = rank_and_world()
    shown = splits["train"]
    if rank == 0 and isinstance(shown, DetectionSplit) and isinstance(batches, TrainBatches):
        draw_data(folder, shown.index, batches, dict(data.names))
    terms, more = methods.distillation(start, network, settings, context.dense)
    measure = evaluator(splits["val"], val_settings(context, single_cls=single))
    result = fit(
        network,
        batches,
        settings,
        task=family,
        folder=folder,
        hooks=[*more, *hooks],
        terms=terms,
        evaluate=measure if family.knows("evaluate") else None,
        resume=has_state(folder),
        like=like,
        split=splits["train"],
        identity=identity,
    )
    if rank == 0:
        draw_results(folder, result.best_epoch)
    return result


def known_epochs(checkpoint: Checkpoint) -> int | None:
    """Number of epochs that a network was trained for, from its history or training notes; None if not recorded."""
    entries = [entry.settings.get("epochs") for entry in checkpoint.history]
    epochs = [value for value in entries if isinstance(value, int)]
    if epochs:
        return sum(epochs)
    if any(entry.verb == "heal" for entry in checkpoint.history):
        return None  # the training notes are from healing, whose pieces are not epochs
    notes = checkpoint.training
    known = notes.get("settings", notes).get("epochs")
    return known if isinstance(known, int) and known > 0 else None
