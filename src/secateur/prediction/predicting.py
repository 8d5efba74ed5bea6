"""Detects objects in images: runs batches of frames through a predictor and maps boxes to the pixels of each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.data.images import Image, check_image_channels
from secateur.data.letterbox import letterboxed, to_original
from secateur.errors import UserError
from secateur.evaluation.predictor import AnswerError, Predictor
from secateur.networks.classes import class_ids
from secateur.prediction.media import Frame
from secateur.prediction.settings import BoxSettings
from secateur.sizes import ImageSize


@dataclass(frozen=True)
class Prediction:
    """The detections in a frame.

    Attributes:
        frame: the image.
        boxes: float32 [n, 6]: x1, y1, x2, y2 in pixels of the image, confidence, class; best first.
    """

    frame: Frame
    boxes: Tensor


class BoxFinder:
    """A predictor with image size, batch size and thresholds."""

    def __init__(
        self,
        predictor: Predictor,
        image_size: ImageSize,
        settings: BoxSettings | None = None,
        batch_size: int = 1,
    ) -> None:
        """Stores the options for all images.

        Args:
            predictor: the predictor.
            image_size: px. If the predictor accepts any size, one number is the longest side, and the other side
                follows the image's aspect ratio. Otherwise it is the side, or height and width, of every input.
            settings: thresholds and classes.
            batch_size: maximum number of images in a batch.

        Raises:
            UserError: a class is unknown, the batch size is invalid, or the predictor accepts neither grey nor colour
                images.
        """
        check_image_channels(predictor.channels)
        if batch_size < 1:
            raise UserError(f"batch_size ({batch_size}) must be positive.")
        settings = settings or BoxSettings()
        self.predictor, self.batch_size = predictor, batch_size
        self._size, self._nms = image_size, settings.nms()
        follows = isinstance(image_size, int) and predictor.image_size is None
        self._stride = int(max(predictor.strides)) if follows else 0
        self._classes = class_ids(settings.classes, predictor.names) if settings.classes else None

    def boxes(self, images: Sequence[Image], names: Sequence[object] = ()) -> list[Tensor]:
        """Boxes float32 [n, 6] on CPU for each image BGR uint8 [H, W, 3]: x1, y1, x2, y2 in pixels of the image,
        confidence, class; best first.

        Args:
            images: the images.
            names: names of the images for error messages; without them, an image is named by its number, from 1.

        Raises:
            UserError: the output of an exported file for an image cannot be boxes.
        """
        channels = self.predictor.channels
        fitted = [letterboxed(image, self._size, self._stride, channels=channels) for image in images]
        # Inputs of a batch have one shape; a group holds images with the same input shape.
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, (pixels, _) in enumerate(fitted):
            groups[pixels.shape].append(position)
        found: dict[int, Tensor] = {}
        for positions in groups.values():
            try:
                kept = self._kept(np.stack([fitted[position][0] for position in positions]))
            except AnswerError as error:
                wrong = positions[error.image]
                raise error.named(names[wrong] if names else f"image {wrong + 1}") from None
            for position, boxes in zip(positions, kept, strict=True):
                found[position] = to_original(boxes.cpu(), fitted[position][1])
        return [found[position] for position in range(len(images))]

    def predictions(self, frames: Iterable[Frame]) -> Iterator[Prediction]:
        """The detections in each frame, in order; one batch is in memory at a time."""
        for batch in self._batches(frames):
            boxes = self.boxes([frame.pixels for frame in batch], batch)
            yield from map(Prediction, batch, boxes)

    def _batches(self, frames: Iterable[Frame]) -> Iterator[list[Frame]]:
        batch: list[Frame] = []
        for frame in frames:
            batch.append(frame)
            # Predict each frame of a live source immediately instead of waiting for a full batch.
            if len(batch) >= self.batch_size or frame.medium.live:
                yield batch
                batch = []
        if batch:
            yield batch

    def _kept(self, images: np.ndarray) -> list[Tensor]:
        """Boxes of the selected classes, for images uint8 [B, h, w, 3] RGB or [B, h, w, 1] grey."""
        pixels = torch.from_numpy(images).to(self.predictor.device)
        found = self.predictor.infer(pixels.permute(0, 3, 1, 2).float().div_(255), self._nms.conf)
        return self.predictor.boxes(found, self._nms, self._classes)
