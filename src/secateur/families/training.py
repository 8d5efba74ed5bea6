"""Interface of families that train with a trainer of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.reading import DataSet, Split
from secateur.networks.checkpoint import Checkpoint
from secateur.training.hooks import Hook
from secateur.training.loop import FitResult
from secateur.training.settings import TrainSettings
from secateur.training.state import TrainingIdentity


@dataclass(frozen=True)
class OwnTraining:
    """A training by the trainer of a family.

    It writes weights/best.safetensors and weights/last.safetensors to the folder, and `state.pt`, which marks the
    folder of an interrupted or finished training.

    Attributes:
        start: the network for the classes of the data set, with the history for the new checkpoints.
        data: the data set.
        splits: its checked images, "train" and "val".
        settings: training options; image size and hyper-parameters are the effective ones.
        folder: the run folder.
        hooks: methods that act around the optimizer step.
        teacher: the dense network to imitate; None without distillation.
        identity: identifies the training in the state.
    """

    start: Checkpoint
    data: DataSet
    splits: dict[str, Split]
    settings: TrainSettings
    folder: Path
    hooks: Sequence[Hook]
    teacher: Checkpoint | None
    identity: TrainingIdentity


class Trainable:
    """The part of `Family` for training without the loop of Secateur; a family that implements `fit` has its own
    trainer."""

    kind: ClassVar[str]

    def check_fit(self, settings: TrainSettings, distill: DistillSettings) -> None:
        """Checks that the trainer of the family supports all options, before anything is written.

        Raises:
            UserError: an option is not supported; the message names it.
        """

    def fit(self, training: OwnTraining) -> FitResult:
        """Trains with the trainer of the family instead of `training.loop.fit`, or resumes in its folder.

        Raises:
            UserError: the trainer rejects the data.
        """
        raise UserError(
            f"Networks of the family '{self.kind}' have no trainer of their own. Use the training loop of Secateur."
        )
