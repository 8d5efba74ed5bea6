"""Training a checkpoint on a data set: dense, sparse and fine-tuning are one function with other methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.compression.measuring import evaluator, val_settings
from secateur.data.augment import Augmentation
from secateur.data.batches import TrainBatches, train_batches
from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index
from secateur.distillation.settings import DistillSettings
from secateur.distillation.teacher import check_distillation, distillation, find_teacher
from secateur.errors import UserError
from secateur.families.context import Context, as_one_class, known_data
from secateur.families.detection.split import index_of
from secateur.families.family import family_of
from secateur.families.reading import DataSet, Split
from secateur.families.starting import for_classes, keeps_its_head
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint, Stage
from secateur.report.pictures import draw_data, draw_results
from secateur.sparsity.hold import HoldMasks
from secateur.sparsity.penalties import check_penalties, penalty_hooks
from secateur.sparsity.settings import SparsifySettings, WeightSettings
from secateur.sparsity.weights import WeightPruning, check_weight_pruning
from secateur.training.distributed import rank_and_world
from secateur.training.hooks import Hook
from secateur.training.loop import FitResult, fit
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings
from secateur.training.state import Subject, has_state


@dataclass(frozen=True)
class Methods:
    """Weight pruning, distillation and channel penalties beside the plain loop; by default none of them."""

    weights: WeightSettings = field(default_factory=WeightSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    sparsify: SparsifySettings | None = None

    @property
    def prunes_weights(self) -> bool:
        """Whether weights are zeroed, or their zeros held."""
        return self.weights.target_sparsity > 0 or self.weights.lock_zeros

    def check(self, settings: TrainSettings) -> None:
        """Looks up every name and range before anything is written.

        Raises:
            UserError: an unknown name, a target that its pattern cannot give, a cool-down as long as the training.
        """
        if self.sparsify is not None:
            check_penalties(self.sparsify, settings)
        check_distillation(self.distill)
        if self.weights.target_sparsity > 0:
            check_weight_pruning(self.weights, settings.epochs)

    def record(self) -> dict[str, Any]:
        """The settings of the methods in use, for the history of a checkpoint."""
        result: dict[str, Any] = {}
        if self.sparsify is not None:
            result |= dataclasses.asdict(self.sparsify)
        if self.prunes_weights:
            result |= dataclasses.asdict(self.weights)
        if self.distill.distill:
            result |= dataclasses.asdict(self.distill)
        return result

    def hooks(self, start: Checkpoint, settings: TrainSettings, images: int) -> list[Hook]:
        """Hooks in the order in which they act; zeroing weights comes last, so that nothing refills them.

        Raises:
            UserError: an unknown name, or settings that do not fit the checkpoint.
        """
        hooks: list[Hook] = []
        if self.sparsify is not None:
            hooks += penalty_hooks(start, self.sparsify, settings, images)
        if self.prunes_weights:
            hooks.append(WeightPruning(self.weights, start))
        elif start.masks:
            # Zeros of an earlier weight pruning stay, whatever the training does.
            hooks.append(HoldMasks(start.masks))
        return hooks

    def distillation(
        self, start: Checkpoint, student: Detector, settings: TrainSettings, dense: Checkpoint | None
    ) -> tuple[list[Term], list[Hook]]:
        """Loss terms of the distillation, if any; the teacher is `--teacher`, or `dense`, or what `start` came from."""
        if not self.distill.distill:
            return [], []
        teacher = dense
        if teacher is None or self.distill.teacher:
            teacher = find_teacher(self.distill, start, zeroing=self.prunes_weights)
        return distillation(self.distill, student, teacher, start, settings)


def training_batches(
    index: Index, settings: TrainSettings, stride: int, context: Context, *, channels: int = 3
) -> TrainBatches:
    """Shuffled, augmented batches of this process's share of an index, of images of so many channels."""
    rank, world = rank_and_world()
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
        channels=channels,
    )
    return train_batches(
        dataset,
        settings.batch_size // world,
        seed=settings.seed,
        workers=settings.workers,
        rank=rank,
        world=world,
        pin=context.device.type == "cuda",
    )


def for_training(start: Checkpoint, data: DataSet, *, single_cls: bool) -> tuple[Checkpoint, DataSet, bool]:
    """A checkpoint and a data set with the same classes, and whether all are one class.

    Args:
        single_cls: it is asked for; a checkpoint that was trained so is trained so again.

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
    """What of the splits must not change while a training is interrupted, in words, and a digest of each."""
    return {f"the {name} images or labels": split.signature() for name, split in splits.items()}


def can_be_trained(checkpoint: Checkpoint) -> bool:
    """Whether there is a loss for networks of this kind."""
    return isinstance(checkpoint.build(), Detector)


def check_trainable(checkpoint: Checkpoint, done: str) -> None:
    """Refuses a network for which there is no loss.

    Args:
        done: what would be done with it, for the error: "trained", "healed".

    Raises:
        UserError: there is none.
    """
    if not can_be_trained(checkpoint):
        raise UserError(
            f"Networks of the kind '{checkpoint.architecture.kind}' cannot be {done}: they have no loss here; leave "
            "the step out."
        )


def train_checkpoint(
    start: Checkpoint,
    context: Context,
    settings: TrainSettings,
    folder: Path,
    *,
    verb: str = "train",
    methods: Methods | None = None,
) -> FitResult:
    """Trains from a checkpoint; writes weights/best and weights/last, results.csv and plots into `folder`.

    Where `folder` holds the state of an interrupted training, that one resumes. The head of a detector that knows the
    classes of the data set in another order is put into this one. With `single_cls` the head has one class.

    Args:
        context: the data set, and the dense detector that teaches where no other teacher is named.
        verb: name of the stage in the checkpoint's history.
        methods: what acts besides the plain loop.

    Raises:
        UserError: no data set, one that is broken or of other classes, methods that do not fit the checkpoint, or a
            training to resume whose classes or data were others.
    """
    check_trainable(start, "trained")
    methods, given = methods or Methods(), start
    start, data, single = for_training(start, context.require_data("A training"), single_cls=settings.single_cls)
    detector = start.build()
    assert isinstance(detector, Detector)
    settings = dataclasses.replace(settings, image_size=context.image_size, single_cls=single)
    splits = {name: family_of(start).split(data, name) for name in ("train", "val")}
    train_index = index_of(splits["train"], "A training")
    stride, channels = int(max(detector.strides)), start.architecture.channels
    batches = training_batches(train_index, settings, stride, context, channels=channels)
    rank, _ = rank_and_world()
    if rank == 0:
        draw_data(folder, train_index, batches, dict(data.names))
    stage = Stage(verb=verb, settings=settings.to_dict() | methods.record(), metrics={}, cost={})
    hooks = methods.hooks(start, settings, len(train_index.files))
    terms, more = methods.distillation(start, detector, settings, context.dense)
    result = fit(
        detector,
        batches,
        settings,
        folder=folder,
        hooks=[*more, *hooks],
        terms=terms,
        evaluate=evaluator(splits["val"], val_settings(context, single_cls=single)),
        resume=has_state(folder),
        like=dataclasses.replace(start, history=(*start.history, stage), image_size=settings.image_size),
        index=train_index,
        subject=Subject(start.names, contents(splits), given.names),
    )
    if rank == 0:
        draw_results(folder, result.best_epoch)
    return result
