"""The objective of a training: a sum of terms; the detection loss is the first, distillation may be another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Term(Protocol):
    """One loss term; scaled by the total batch size like the detection loss, so that terms add up."""

    def __call__(self, raw: Sequence[Tensor], targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar to differentiate, and named parts (detached, not times the batch size) to log.

        Args:
            raw: logits [B, na, ny, nx, no] of each level.
            targets: [T, 6] rows (image, class, x, y, w, h), normalised.
            images: [B, C, H, W] in 0..1, as the detector saw them.
        """


class Objective:
    """Sums terms; part names of different terms must differ."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)

    def __call__(self, raw: Sequence[Tensor], targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all terms and all their parts."""
        total, parts = self.terms[0](raw, targets, images)
        parts = dict(parts)
        for term in self.terms[1:]:
            value, more = term(raw, targets, images)
            total = total + value
            parts |= more
        return total, parts
