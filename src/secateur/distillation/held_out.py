"""Loss of a student against its teacher on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.distillation.imitate import teaching
from secateur.training.distributed import one_for_all
from secateur.training.results import HeldOutLoss

Compare = Callable[[Any, Any, Tensor], Tensor]
"""Loss of one batch, a scalar, from the outputs of the student, the outputs of the teacher, and the images."""
MOST_KEPT = 256 * 2**20
"""Maximum size in bytes of teacher outputs that are kept between evaluations."""


class HeldOut:
    """Evaluates students against one teacher by the loss of their outputs.

    Args:
        teacher: a copy is kept, with folded batch norms if possible; the network itself is not changed.
        compare: see `Imitate.compare`.
        batches: prepared images [B, C, H, W], on the device of the students.
    """

    def __init__(self, teacher: nn.Module, compare: Compare, batches: Iterable[Tensor]) -> None:
        self.teacher, self.compare, self.batches = teaching(teacher), compare, list(batches)
        self._taught: list[Any] | None = []  # outputs of the teacher so far; None if they are too large to keep

    @torch.no_grad()
    def __call__(self, student: nn.Module) -> HeldOutLoss:
        """The mean over the images, computed in this process only."""
        total, images = 0.0, 0
        with one_for_all():
            for number, batch in enumerate(self.batches):
                total += float(self.compare(student(batch), self._answers(number, batch), batch)) * len(batch)
                images += len(batch)
        return HeldOutLoss(total / max(images, 1))

    def _answers(self, number: int, batch: Tensor) -> Any:
        """Outputs of the teacher for batch `number`; called in order."""
        if self._taught is not None and number < len(self._taught):
            return self._taught[number]
        answers = self.teacher.to(batch.device)(batch)
        if self._taught is not None:
            self._taught.append(answers)
            if _size(self._taught) > MOST_KEPT:
                self._taught = None
        return answers


def _size(answers: Any) -> int:
    """Bytes of all tensors in nested containers."""
    return sum(leaf.nbytes for leaf in tree_leaves(answers) if isinstance(leaf, Tensor))
