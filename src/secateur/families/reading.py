"""How images of a data set are read, whatever the task: what a family's splits offer to trainings and to evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from secateur.training.batches import Batches
from secateur.training.hyp import Hyp


@runtime_checkable
class DataSet(Protocol):
    """A data set as its description tells it, before any image is read; a frozen dataclass."""

    @property
    def file(self) -> Path:
        """The description, or the source of images without labels."""

    @property
    def splits(self) -> Mapping[str, Any]:
        """The splits by name: "train", "val", "test"."""

    @property
    def names(self) -> Mapping[int, str]:
        """Class id -> name."""

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def labelled(self) -> bool:
        """Whether labels are read."""

    @property
    def one_class(self) -> bool:
        """Whether everything counts as class 0, whatever its label says."""


@dataclass(frozen=True)
class Reading:
    """How the images of a split are turned into batches.

    Attributes:
        image_size: px of the longer side, or height and width of every image.
        batch_size: images of a batch of this process.
        seed: of the order and of the augmentation.
        workers: processes that load images.
        channels: of the images: 3, or 1 for grey.
        augmentation: hyper-parameters of the augmentation; None shows images as they are.
        rect: images of like shape together, with as little border as the stride allows.
        stride: of which the sides are multiples.
        rank, world: which share of the batches is this process's.
        pin: keep batches in pinned memory, for a GPU.
    """

    image_size: int | tuple[int, int]
    batch_size: int
    seed: int = 0
    workers: int = 0
    channels: int = 3
    augmentation: Hyp | None = None
    rect: bool = False
    stride: int = 32
    rank: int = 0
    world: int = 1
    pin: bool = False


class Split(Protocol):
    """The checked images of one split of a data set."""

    def __len__(self) -> int:
        """Number of images."""

    def select(self, places: Sequence[int]) -> Split:
        """The images at these places, in this order."""

    def signature(self) -> str:
        """A digest of the images and labels, for the key of a run."""

    def shuffled(self, reading: Reading) -> Batches:
        """Batches of epoch after epoch, each in an order of its own that is a function of the seed and the epoch."""

    def ordered(self, reading: Reading) -> Iterable[Any]:
        """Every image once, in order, not augmented; each item is a `BatchLike`."""


def evenly(split: Split, limit: int | None) -> Split:
    """At most `limit` images of a split, spread evenly and always the same; None takes all."""
    if limit is None or limit >= len(split):
        return split
    return split.select(np.linspace(0, len(split) - 1, limit).round().astype(int).tolist())
