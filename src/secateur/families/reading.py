"""Interfaces for reading images of a data set, for all tasks: splits, and how to read them."""

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
    """A data set from its description, before any image is read; a frozen dataclass."""

    @property
    def file(self) -> Path:
        """The description file, or the source of images without labels."""

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
        """Whether all objects have class 0, independent of their labels."""


@dataclass(frozen=True)
class Reading:
    """How to form batches from the images of a split.

    Attributes:
        image_size: longer side of the images in pixels, or height and width of every image.
        batch_size: images per batch of this process.
        seed: seed of the order and of the augmentation.
        workers: processes that load images.
        channels: image channels: 3, or 1 for grey.
        augmentation: hyper-parameters of the augmentation; None: no augmentation.
        rect: group images of similar shape, with the smallest border that the stride allows.
        stride: image sides are multiples of it.
        rank, world: which share of the batches belongs to this process.
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
        """The images at these indices, in this order."""

    def signature(self) -> str:
        """A digest of the images and labels, for the key of a run."""

    def shuffled(self, reading: Reading) -> Batches:
        """Batches epoch by epoch, each in an order that depends only on the seed and the epoch."""

    def ordered(self, reading: Reading) -> Iterable[Any]:
        """Every image once, in order, without augmentation; each item is a `BatchLike`."""


def evenly(split: Split, limit: int | None) -> Split:
    """At most `limit` evenly spaced images of a split, always the same; None: all."""
    if limit is None or limit >= len(split):
        return split
    return split.select(np.linspace(0, len(split) - 1, limit).round().astype(int).tolist())
