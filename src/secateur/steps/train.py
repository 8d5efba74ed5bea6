"""The step that trains a detector on labelled data and returns the best epoch."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tyro.conf import Suppress

from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.sparsity.settings import WeightSettings
from secateur.steps.step import EPOCH_SECONDS, Made, Outcome, Override, Step, step
from secateur.training.settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from secateur.checkpoints.training import Methods
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint
    from secateur.training.loop import FitResult

CONDITIONS = ("always", "classes-differ")
ZEROES = "zeroes weights while training"
TRAINING_OVERRIDES = (
    Override("epochs", "epochs", "Epochs of each training step.", int, zero_skips=True, purpose="trains"),
    Override("hyp", "hyp", "Hyper-parameters of all training steps.", purpose="trains"),
    Override("optimizer", "optimizer", "Optimizer of all training steps: auto, SGD, Adam or AdamW.", purpose="trains"),
    Override("amp", "amp", "Mixed precision of all training steps: auto, off, bf16 or fp16.", purpose="trains"),
)
WEIGHT_OVERRIDES = (
    Override("target_sparsity", "target_sparsity", "Share of weights to set to zero.", float, purpose=ZEROES),
    Override(
        "pruning_pattern", "pruning_pattern", "Block pattern of the zeroed weights: 1x1, 4x1, NxM, 2:4.", purpose=ZEROES
    ),
    Override(
        "pruning_frequency",
        "pruning_frequency",
        "Optimizer steps between two updates of the zeroed weights.",
        int,
        purpose=ZEROES,
    ),
    Override(
        "cooldown_epochs", "cooldown_epochs", "Final epochs during which the zeros are fixed.", int, purpose=ZEROES
    ),
    Override(
        "exclude",
        "exclude_weights",
        "Name patterns of layers that keep all channels and weights.",
        tuple,
        purpose=ZEROES,
    ),
)


@dataclass(frozen=True)
class TrainingStep(Step):
    """Base class of trainings: hyper-parameters, training settings and the teacher."""

    hyp: str = "scratch-low"
    """Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    train: TrainSettings = field(default_factory=TrainSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)

    weights_file: ClassVar[str] = "best"
    row_name: ClassVar[str] = ""

    def methods(self) -> Methods:
        """The training methods that the settings enable."""
        raise NotImplementedError

    def settings(self) -> TrainSettings:
        """Training settings with the hyper-parameters loaded."""
        from secateur.families.hyp import load_hyp

        return dataclasses.replace(self.train, hyp=load_hyp(self.hyp))

    def describe(self) -> str:
        """The verb and the epochs."""
        return f"{self.verb} ({self.train.epochs} {'epoch' if self.train.epochs == 1 else 'epochs'})"

    def passes(self, images: int) -> int:
        """The epochs, independent of the number of images."""
        return self.train.epochs

    def files(self) -> tuple[str, ...]:
        """The teacher and the user's hyper-parameter file, if any."""
        return self.distillation.teacher, self.hyp

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks the names of methods and hyper-parameters, and that the teacher matches."""
        from secateur.checkpoints.training import check_trainable
        from secateur.data.images import check_image_channels
        from secateur.families.family import family_of
        from secateur.families.loading import load_checkpoint
        from secateur.families.only_classes import as_taught
        from secateur.training.task import check_strides

        check_trainable(checkpoint, "trained")
        context.require_data("A training")
        family = family_of(checkpoint)
        check_image_channels(checkpoint.architecture.channels)
        check_strides(checkpoint.build(), self.train)
        settings = self.settings()
        settings.hyp.read(family.hyp)
        self.methods().check(settings, family)
        teacher = self.distillation.teacher
        if teacher:
            family.check_teacher(checkpoint, as_taught(load_checkpoint(teacher), checkpoint), teacher)

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Returns one row: the best epoch, or the last average."""
        from secateur.families.loading import load_checkpoint
        from secateur.training.results import epochs_in

        folder = context.place(self.verb)
        begun, before = time.perf_counter(), epochs_in(folder)
        result = self.trained(checkpoint, context, folder)
        # An interrupted training has completed some of its epochs before.
        epochs, seconds = epochs_in(folder) - before, time.perf_counter() - begun
        best = self.weights_file == "best"
        name = "dense" if context.first and self.makes_dense else self.row_name
        made = Made(load_checkpoint(result.best if best else result.last), name, plots=best)
        return Outcome((made,), {EPOCH_SECONDS: seconds / epochs} if epochs > 0 else {})

    def trained(self, checkpoint: Checkpoint, context: Context, folder: Path) -> FitResult:
        """Trains in a folder, or resumes an interrupted training of the same folder."""
        from secateur.checkpoints.training import train_checkpoint

        return train_checkpoint(checkpoint, context, self.settings(), folder, verb=self.verb, methods=self.methods())


@step("train", purpose="trains")
@dataclass(frozen=True)
class Train(TrainingStep):
    """Train on labelled data and keep the best epoch."""

    sparsity: WeightSettings = field(default_factory=WeightSettings)
    when: Suppress[str] = "always"
    """In a recipe: classes-differ skips the step if the weights already have the classes of the data set."""

    row_name: ClassVar[str] = "trained"
    makes_dense: ClassVar[bool] = True
    overrides: ClassVar[tuple[Override, ...]] = (
        *TRAINING_OVERRIDES,
        Override(
            "dense_epochs",
            "epochs",
            "Epochs of the dense training (0 skips it).",
            int,
            zero_skips=True,
            forces=True,
        ),
        *WEIGHT_OVERRIDES,
    )

    def __post_init__(self) -> None:
        if self.when not in CONDITIONS:
            raise UserError(f"'when: {self.when}' is unknown; choose {' or '.join(CONDITIONS)}.")

    @property
    def title(self) -> str:
        """The reference detector that all others are compared with."""
        return "dense"

    def takes(self, override: Override) -> bool:
        """Accepts weight-pruning options only if weights are pruned."""
        return override.purpose != ZEROES or self.sparsity.target_sparsity > 0

    def needed(self, first: bool, trained: bool) -> bool:
        """A first training may be skipped if the weights have the classes of the data set."""
        return not (self.when == "classes-differ" and first and trained)

    def methods(self) -> Methods:
        """Weight pruning and distillation, if enabled."""
        from secateur.checkpoints.training import Methods

        return Methods(weights=self.sparsity, distill=self.distillation)
