"""What the training loop reads: batches of images with their targets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor


class BatchLike(Protocol):
    """What the loop reads of a batch."""

    images: Tensor  # uint8 [B, C, H, W]
    targets: Tensor  # of all images; a detector's are float [T, 6] rows (image, class, x, y, w, h)


class Batches(Protocol):
    """This process's share of the training batches; `epoch` is a pure function of its arguments."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterable[Any]:
        """The batches of an epoch from number `start` on."""
