"""Interfaces of training batches: images with their targets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor


class BatchLike(Protocol):
    """The part of a batch that the loop reads."""

    images: Tensor  # uint8 [B, C, H, W]
    targets: Tensor  # of all images; for a detector, float rows [T, 6] (image, class, x, y, w, h)


class Batches(Protocol):
    """The share of this process in the training batches; `epoch` depends only on its arguments."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterable[Any]:
        """Batches of an epoch from index `start`."""
