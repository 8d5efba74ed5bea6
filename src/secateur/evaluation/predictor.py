"""What answers images with boxes: the protocol that validation, timing and prediction know."""

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
"""How far a score may be outside 0..1: quantised files round."""


class AnswerError(UserError):
    """What a predictor answers for an image cannot be boxes.

    Attributes:
        image: number of the image in its batch.
    """

    def __init__(self, who: str, fault: str, image: int, advice: str) -> None:
        super().__init__(f"{who} gives {fault}; {advice}.")
        self.image = image
        self._told = who, fault, advice

    def named(self, image: object) -> UserError:
        """The same with the name of the image."""
        who, fault, advice = self._told
        return UserError(f"{who} gives {fault} for {image}; {advice}.")


def check_candidates(found: Sequence[Candidates], who: str, advice: str) -> None:
    """Refuses candidates of the images of a batch that no detector gives.

    Raises:
        AnswerError: a value is not finite, a width or height is negative, or a score is outside 0..1.
    """
    if not any(len(boxes) for boxes, _ in found):
        return
    boxes, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    sizes = boxes[:, 2:] - boxes[:, :2]
    # One transfer from a GPU; a sum reads values faster than a look at each, and is finite where they are.
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
    """Refuses final boxes [n, 6] of the images of a batch that no detector of `nc` classes gives.

    Raises:
        AnswerError: as `check_candidates`, or a class is not among the detector's.
    """
    check_candidates([Candidates(boxes[:, :4], boxes[:, 4:5]) for boxes in found], who, advice)
    for image, boxes in enumerate(found):
        if not bool(((boxes[:, 5] >= 0) & (boxes[:, 5] < nc)).all()):
            raise AnswerError(who, "a class that it has no name for", image, advice)


@runtime_checkable
class Predictor(Protocol):
    """A detector that can be asked, whatever runs it. It is made once, for one device and precision.

    An answer has two phases, which are timed apart: `infer` computes what the detector proposes, `boxes` chooses.
    """

    @property
    def names(self) -> Mapping[int, str]:
        """Class names by id."""

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def channels(self) -> int:
        """Channels of the images: 3, or 1 for grey."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image for one cell of each level; the sides of images are multiples of the largest."""

    @property
    def image_size(self) -> int | tuple[int, int] | None:
        """Side, or height and width, of the only images it takes; None where any multiple of the stride will do."""

    @property
    def device(self) -> torch.device:
        """Where images are best put."""

    def infer(self, images: Tensor, confidence: float) -> Any:
        """What the detector proposes for images [B, C, H, W] (float32 in 0..1), as `boxes` reads it.

        Args:
            confidence: proposals that no class can reach this score with may be left out; below 0 none is.

        Raises:
            AnswerError: an answer cannot be boxes.
        """

    def boxes(
        self, found: Any, settings: NmsSettings = PREDICTION, classes: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The boxes that stay of what `infer` gave, at a confidence of at most that of the settings.

        Args:
            classes: ids of the only classes that are wanted; None wants all.

        Returns:
            for each image float32 [n, 6]: x1, y1, x2, y2 in pixels, score, class; best score first.
        """

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """`infer` and `boxes` in one: boxes float32 [n, 6] of each image in [B, C, H, W] (float32 in 0..1)."""
