"""What a family is given that trains its networks by a trainer of its own, in place of `training.loop.fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.families.reading import DataSet, Split
from secateur.networks.checkpoint import Checkpoint
from secateur.training.hooks import Hook
from secateur.training.settings import TrainSettings
from secateur.training.state import TrainingIdentity


@dataclass(frozen=True)
class OwnTraining:
    """A training by a trainer of the family's own.

    It leaves weights/best.safetensors and weights/last.safetensors in the folder, and `state.pt` while it can be resumed
    there: a folder that has one is that of an interrupted or finished training.

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
