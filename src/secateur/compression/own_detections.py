"""A detector's own detections in the place of labels: scores and trainings then need pictures and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.evaluation.predictor import TorchPredictor
from secateur.evaluation.settings import NmsSettings

CONFIDENCE = 0.25
"""Detections under it are more often wrong than right in a usual detector; YOLOv5's detect.py draws none of them."""
SETTINGS = NmsSettings(conf=CONFIDENCE, iou=0.45)


class OwnDetections:
    """Labels images with what a detector sees on them, after suppression.

    Attributes:
        found: boxes so far.
        images: pictures so far.
    """

    def __init__(self, detector: Detector) -> None:
        self.predictor = TorchPredictor(detector)
        self.found = self.images = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Targets [T, 6] of images [B, 3, H, W] in 0..1: image, class, centre x and y, width, height (normalised)."""
        boxes = self.predictor.predict(images, SETTINGS)
        rows = [_targets(number, found, images.shape[2:]) for number, found in enumerate(boxes)]
        self.images += len(images)
        self.found += sum(map(len, rows))
        return torch.cat(rows).cpu()

    def require_some(self) -> None:
        """Refuses pictures on which nothing was found.

        Raises:
            UserError: there were pictures, and no box on any of them.
        """
        if self.images and not self.found:
            raise UserError(
                f"The detector sees nothing (no box over a confidence of {CONFIDENCE:g}) on {self.images} pictures, so "
                "they cannot tell which channels matter: give --images pictures of what it was trained to see, or a "
                "labelled data set as --data."
            )


def _targets(number: int, boxes: Tensor, sides: torch.Size) -> Tensor:
    """Rows of one image from its boxes [n, 6] in pixels."""
    height, width = sides
    x1, y1, x2, y2, _, category = boxes.float().unbind(1)
    whole = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    return torch.stack([torch.full_like(x1, number), category, *whole], 1)
