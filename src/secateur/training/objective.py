"""The objective of a training: a sum of terms. The loss of the task is the first; distillation can be another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Term(Protocol):
    """One loss term; all terms are scaled by the total batch size, so that they can be summed."""

    def __call__(self, raw: Any, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to differentiate, a scalar, and named terms for the log (detached, not times the batch size).

        Args:
            raw: outputs of the network, at least float32.
            targets: targets of the batch, on the device of the network; their format is defined by the family.
            images: [B, C, H, W], the network input.
        """


class Objective:
    """Sums terms; names of terms must be unique."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)

    def __call__(self, raw: Any, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all terms, a scalar, and all named terms."""
        total, parts = self.terms[0](raw, targets, images)
        parts = dict(parts)
        for term in self.terms[1:]:
            value, more = term(raw, targets, images)
            total = total + value
            parts |= more
        return total, parts
