"""Labels for images that have none: boxes drawn from what a detector believes to see."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import NmsSettings

CONFIDENCE = 0.25
"""An image without a box over it shows the detector nothing; YOLOv5's detect.py draws none under it."""
SETTINGS = NmsSettings(conf=0.1, iou=0.45)
LOOSENESS = 0.08
"""Standard deviation by which a box is moved and scaled, in shares of its sides: about how loose labels are."""


class Sight:
    """How much a network sees on images.

    Attributes:
        seen: boxes over CONFIDENCE so far.
        images: images so far.
    """

    def __init__(self) -> None:
        self.seen = self.images = 0

    def see(self, scores: Tensor) -> None:
        """Counts an image whose boxes have these scores [n]."""
        self.images += 1
        self.seen += int((scores >= CONFIDENCE).sum())

    def require_some(self) -> None:
        """Refuses images on which nothing was seen.

        Raises:
            UserError: there were images, and no box over CONFIDENCE on any of them.
        """
        if self.images and not self.seen:
            raise UserError(
                f"The detector sees nothing (no box over a confidence of {CONFIDENCE:g}) on {self.images} images, so "
                "they cannot tell which channels matter: give --images with images of what it was trained to see, or "
                "a labelled data set as --data."
            )


class OwnDetections:
    """Labels images with what a detector believes to see on them.

    Its detections as they are would be a poor measure: the loss of a detector that is asked for exactly what it says
    hardly changes to first order, whatever goes. So labels are drawn from its belief, as the Fisher information is
    defined: each detection over a confidence of 0.1 counts with the probability of its score, and its box is a little
    off.
    """

    def __init__(self, predictor: Predictor, seed: int = 0) -> None:
        self.predictor, self.sight = predictor, Sight()
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        """Targets [T, 6] of images [B, C, H, W] in 0..1: image, class, centre x and y, width, height (normalised)."""
        found = [boxes.float().cpu() for boxes in self.predictor.predict(images, SETTINGS)]
        for boxes in found:
            self.sight.see(boxes[:, 4])
        return torch.cat([self._drawn(number, boxes, images.shape[2:]) for number, boxes in enumerate(found)])

    def require_some(self) -> None:
        """See `Sight.require_some`."""
        self.sight.require_some()

    def _drawn(self, number: int, boxes: Tensor, sides: torch.Size) -> Tensor:
        """Rows of one image from its boxes [n, 6] in pixels."""
        boxes = boxes[torch.rand(len(boxes), generator=self.generator) < boxes[:, 4]]
        height, width = sides
        whole = boxes.new_tensor([width, height])
        centres, extent = (boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]
        off = LOOSENESS * torch.randn(len(boxes), 4, generator=self.generator)
        centres, extent = centres + off[:, :2] * extent, extent * off[:, 2:].exp()
        image = torch.full((len(boxes), 1), float(number))
        return torch.cat([image, boxes[:, 5:6], centres / whole, extent / whole], 1)
