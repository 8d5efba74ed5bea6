"""How far a student is from its teacher on images that it does not train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from secateur.distillation.imitate import teaching
from secateur.training.results import HeldOutLoss

Compare = Callable[[Any, Any, Tensor], Tensor]
"""The loss of one batch: what the student returns, what the teacher returns, the images."""


class HeldOut:
    """Measures students against one teacher by the loss of their outputs.

    Args:
        teacher: a copy with BatchNorm folded in, where it has one, is kept; the network itself is left as it is.
        compare: see `Imitate.compare`.
        batches: prepared images [B, C, H, W], on the device on which the students are.
    """

    def __init__(self, teacher: nn.Module, compare: Compare, batches: Iterable[Tensor]) -> None:
        self.teacher, self.compare, self.batches = teaching(teacher), compare, list(batches)

    @torch.no_grad()
    def __call__(self, student: nn.Module) -> HeldOutLoss:
        """The mean over the images."""
        total, images = 0.0, 0
        for batch in self.batches:
            self.teacher.to(batch.device)
            taught = self.teacher(batch)
            total += float(self.compare(student(batch), taught, batch)) * len(batch)
            images += len(batch)
        return HeldOutLoss(total / max(images, 1))
