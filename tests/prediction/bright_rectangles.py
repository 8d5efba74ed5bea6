"""A predictor whose answers are known, and images for it: red, green and white rectangles on black."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from secateur.data.images import Image
from secateur.evaluation.nms import Candidates, non_max_suppression
from secateur.evaluation.settings import PREDICTION, NmsSettings

RED, GREEN, WHITE = (0, 0, 255), (0, 255, 0), (255, 255, 255)
CLASSES = {RED: 0, GREEN: 1, WHITE: 2}
Box = tuple[int, int, int, int]
FRAMES = 12
RATE = 12.5


def picture(height: int, width: int, *objects: tuple[tuple[int, int, int], Box]) -> Image:
    """BGR uint8 [height, width, 3]: each object is a colour and x1, y1, x2, y2 in pixels."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for colour, (x1, y1, x2, y2) in objects:
        pixels[y1:y2, x1:x2] = colour
    return pixels


def place(number: int) -> Box:
    """Where the rectangle of the video of the tests lies in frame `number`, from 1 to `FRAMES`."""
    return (8 * number, 16, 8 * number + 32, 56)


class BrightRectangles:
    """Finds rectangles by their colour, as `evaluation.predictor.Predictor`; the larger the surer.

    Attributes:
        shapes: of the batches that it was given, [B, 3, H, W] each.
    """

    nc = 3
    channels = 3
    strides = (8.0, 16.0, 32.0)
    device = torch.device("cpu")

    def __init__(self, image_size: int | tuple[int, int] | None = None) -> None:
        self.names = {0: "red", 1: "green", 2: "white"}
        self.image_size = image_size
        self.shapes: list[tuple[int, ...]] = []

    def infer(self, images: Tensor, confidence: float) -> list[Candidates]:
        self.shapes.append(tuple(images.shape))
        assert images.dtype is torch.float32 and images.min() >= 0 and images.max() <= 1
        return [self._of_one(image) for image in self.seen(images)]

    def seen(self, images: Tensor) -> Tensor:
        return images

    def boxes(
        self, found: Any, settings: NmsSettings = PREDICTION, classes: Sequence[int] | None = None
    ) -> list[Tensor]:
        return non_max_suppression(found, settings, classes)

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        return self.boxes(self.infer(images, settings.conf), settings)

    def _of_one(self, image: Tensor) -> Candidates:
        red, green, blue = image.numpy()
        masks = [red - np.maximum(green, blue), green - np.maximum(red, blue), np.minimum(np.minimum(red, green), blue)]
        rows = []
        for number, mask in enumerate(masks):
            count, _, boxes, _ = cv2.connectedComponentsWithStats((mask > 0.5).astype(np.uint8))
            for x, y, width, height, area in boxes[1:count]:
                if area < 4:  # what compression leaves at edges
                    continue
                scores = [0.0] * self.nc
                scores[number] = 0.5 + 0.45 * min(area / 4000, 1)
                rows.append([x, y, x + width, y + height, *scores])
        found = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4 + self.nc)
        return Candidates(found[:, :4], found[:, 4:])
