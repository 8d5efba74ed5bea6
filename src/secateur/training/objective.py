"""The objective of a training: a sum of terms; the loss of the task is the first, distillation may be another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Term(Protocol):
    """One loss term; all are scaled by the total batch size, so that they add up."""

    def __call__(self, raw: Any, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar to differentiate, and named parts (detached, not times the batch size) to log.

        Args:
            raw: what the network returned, at least float32.
            targets: of the batch, on the device of the network; their form is the family's.
            images: [B, C, H, W], as the network saw them.
        """


class Objective:
    """Sums terms; part names of different terms must differ."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)

    def __call__(self, raw: Any, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all terms and all their parts."""
        total, parts = self.terms[0](raw, targets, images)
        parts = dict(parts)
        for term in self.terms[1:]:
            value, more = term(raw, targets, images)
            total = total + value
            parts |= more
        return total, parts
