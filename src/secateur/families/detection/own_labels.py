"""Labels for images without labels: boxes sampled from the detections of a detector."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import NmsSettings

CONFIDENCE = 0.25
"""Minimum confidence of a detection; an image without one counts as empty. YOLOv5's detect.py uses the same
threshold."""
SETTINGS = NmsSettings(conf=0.1, iou=0.45)
LOOSENESS = 0.08
"""Standard deviation of the random shift and scale of a box, as a share of its sides; about the accuracy of human
labels."""


class Sight:
    """Counts detections on images.

    Attributes:
        seen: number of boxes above CONFIDENCE.
        images: number of images.
    """

    def __init__(self) -> None:
        self.seen = self.images = 0

    def see(self, scores: Tensor) -> None:
        """Counts an image with boxes of these scores [n]."""
        self.images += 1
        self.seen += int((scores >= CONFIDENCE).sum())

    def require_some(self) -> None:
        """Checks that anything was detected.

        Raises:
            UserError: there were images, but no box above CONFIDENCE on any of them.
        """
        if self.images and not self.seen:
            raise UserError(
                f"The detector finds nothing (no box above a confidence of {CONFIDENCE:g}) on {self.images} images, so "
                "channels cannot be scored on them. Set --images with images that contain its objects, or a "
                "labelled data set with --data."
            )


class OwnDetections:
    """Labels images with detections of a network.

    The detections themselves would be a poor choice: the loss against its own outputs is near its minimum, so its
    first-order change is nearly zero for every channel. Instead, labels are sampled from the predicted distribution, as
    in the definition of the Fisher information: each detection above a confidence of 0.1 is included with the
    probability of its score, and its box is slightly perturbed.
    """

    def __init__(self, predictor: Predictor, seed: int = 0) -> None:
        self.predictor, self.sight = predictor, Sight()
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        """Targets [T, 6] for images float [B, C, H, W] in 0..1: image, class, centre x and y, width, height
        (normalised)."""
        found = [boxes.float().cpu() for boxes in self.predictor.predict(images, SETTINGS)]
        for boxes in found:
            self.sight.see(boxes[:, 4])
        return torch.cat([self._drawn(number, boxes, images.shape[2:]) for number, boxes in enumerate(found)])

    def require_some(self) -> None:
        """See `Sight.require_some`."""
        self.sight.require_some()

    def _drawn(self, number: int, boxes: Tensor, sides: torch.Size) -> Tensor:
        """Targets of one image from its boxes [n, 6] in pixels."""
        boxes = boxes[torch.rand(len(boxes), generator=self.generator) < boxes[:, 4]]
        height, width = sides
        whole = boxes.new_tensor([width, height])
        centres, extent = (boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]
        off = LOOSENESS * torch.randn(len(boxes), 4, generator=self.generator)
        centres, extent = centres + off[:, :2] * extent, extent * off[:, 2:].exp()
        image = torch.full((len(boxes), 1), float(number))
        return torch.cat([image, boxes[:, 5:6], centres / whole, extent / whole], 1)
