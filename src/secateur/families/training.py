"""What a family answers and is given that trains its networks by a trainer of its own."""

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
    """A training by a trainer of the family's own.

    It leaves weights/best.safetensors and weights/last.safetensors in the folder, and `state.pt`: a folder that has one
    is that of an interrupted or finished training.

    Attributes:
        start: the network for the classes of the data set, with the history that the new checkpoints have.
        data: the data set.
        splits: its checked images, "train" and "val".
        settings: how to train; image size and hyper-parameters are those that hold.
        folder: the run folder.
        hooks: methods that act around the optimizer step.
        teacher: the dense network that is imitated; None without distillation.
        identity: what is learned, for the state.
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
    """The part of `Family` that trains without the loop of Secateur; a family that answers `fit` has such a trainer."""

    kind: ClassVar[str]

    def check_fit(self, settings: TrainSettings, distill: DistillSettings) -> None:
        """Refuses what the family's own trainer does not have, before anything is written.

        Raises:
            UserError: naming the option.
        """

    def fit(self, training: OwnTraining) -> FitResult:
        """Trains by a trainer of the family's own, in place of `training.loop.fit`, or resumes in its folder.

        Raises:
            UserError: what the trainer says of the data.
        """
        raise UserError(f"Networks of the family '{self.kind}' have no trainer of their own.")
