"""The predictor protocol of validation, timing and prediction, and checks of predictor outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.evaluation.nms import Candidates
from secateur.evaluation.settings import PREDICTION, NmsSettings

NOT_FINITE = "values that are not finite"
SCORE_SLACK = 0.1
"""Tolerance of scores outside 0..1, for the rounding of quantised files."""


class AnswerError(UserError):
    """A predictor's output for an image cannot be boxes.

    Attributes:
        image: index of the image in its batch.
    """

    def __init__(self, who: str, fault: str, image: int, advice: str) -> None:
        super().__init__(f"{who} returns {fault}; {advice}.")
        self.image = image
        self._told = who, fault, advice

    def named(self, image: object) -> UserError:
        """The same error with the name of the image."""
        who, fault, advice = self._told
        return UserError(f"{who} returns {fault} for {image}; {advice}.")


def check_candidates(found: Sequence[Candidates], who: str, advice: str) -> None:
    """Rejects candidates that no detector should return.

    Raises:
        AnswerError: a value is not finite, a width or height is negative, or a score is outside 0..1.
    """
    if not any(len(boxes) for boxes, _ in found):
        return
    boxes, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    sizes = boxes[:, 2:] - boxes[:, :2]
    # One transfer from a GPU. A sum reads values faster than a check of each, and is finite only if all values are.
    numbers = boxes.sum(), scores.sum(), sizes.min(), scores.min(), scores.max()
    total, certainty, size, low, high = torch.stack(numbers).tolist()
    if math.isfinite(total + certainty) and size >= 0 and low >= -SCORE_SLACK and high <= 1 + SCORE_SLACK:
        return
    for image, (boxes, scores) in enumerate(found):
        if not bool(boxes.isfinite().all() & scores.isfinite().all()):
            raise AnswerError(who, NOT_FINITE, image, advice)
        if bool((boxes[:, 2:] < boxes[:, :2]).any()):
            raise AnswerError(who, "a box of negative width or height", image, advice)
        if bool(((scores < -SCORE_SLACK) | (scores > 1 + SCORE_SLACK)).any()):
            raise AnswerError(who, "scores outside 0..1", image, advice)


def check_boxes(found: Sequence[Tensor], nc: int, who: str, advice: str) -> None:
    """Rejects final boxes float [n, 6] that no detector of `nc` classes should return.

    Raises:
        AnswerError: see `check_candidates`, or a class id is out of range.
    """
    check_candidates([Candidates(boxes[:, :4], boxes[:, 4:5]) for boxes in found], who, advice)
    for image, boxes in enumerate(found):
        if not bool(((boxes[:, 5] >= 0) & (boxes[:, 5] < nc)).all()):
            raise AnswerError(who, "a class id without a name", image, advice)


@runtime_checkable
class Predictor(Protocol):
    """A detector in any runtime, created for one device and precision.

    A prediction has two phases that are timed separately: `infer` computes the candidates, `boxes` selects the final
    boxes.
    """

    @property
    def names(self) -> Mapping[int, str]:
        """Class names by id."""

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def channels(self) -> int:
        """Channels of the images: 3, or 1 for grey images."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Stride of each level in pixels; the sides of images are multiples of the largest."""

    @property
    def image_size(self) -> int | tuple[int, int] | None:
        """Side, or height and width, if only one image size is accepted; None if any multiple of the stride is
        accepted.
        """

    @property
    def device(self) -> torch.device:
        """Device on which to put images."""

    def infer(self, images: Tensor, confidence: float) -> Any:
        """The candidates for images (float32 [B, C, H, W] in 0..1), as input for `boxes`.

        Args:
            images: the batch.
            confidence: candidates whose best score is below it may be omitted; a negative value keeps all.

        Raises:
            AnswerError: an output cannot be boxes.
        """

    def boxes(
        self, found: Any, settings: NmsSettings = PREDICTION, classes: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The final boxes from the result of `infer`, whose confidence was at most that of the settings.

        Args:
            found: result of `infer`.
            settings: thresholds.
            classes: ids of the classes to keep; None keeps all.

        Returns:
            for each image float32 [n, 6]: x1, y1, x2, y2 in pixels, score, class; best score first.
        """

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """`infer` followed by `boxes`: float32 [n, 6] per image, for images float32 [B, C, H, W] in 0..1."""
