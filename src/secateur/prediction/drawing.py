"""Draws boxes and their names into images, by supervision: a colour for each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import supervision
from supervision import Color, ColorPalette

from secateur.data.images import Image
from secateur.prediction.detections import to_detections
from secateur.prediction.predicting import Prediction
from secateur.prediction.settings import DrawSettings

_LINE = 1 / 300  # of the shorter side
_BRIGHT = 150  # of 255: on lighter colours names are written in black


class Drawing:
    """A way to draw, with the class names of a detector."""

    def __init__(self, names: Mapping[int, str], settings: DrawSettings) -> None:
        self._names, self._settings = names, settings

    def __call__(self, prediction: Prediction) -> Image:
        """A copy of the image with its boxes: BGR uint8 [H, W, 3]."""
        pixels = prediction.frame.pixels.copy()
        if not len(prediction.boxes):
            return pixels
        # The best box lies on top.
        detections = to_detections(prediction.boxes.flip(0), self._names)
        size = (pixels.shape[1], pixels.shape[0])
        thickness = self._settings.line_thickness or max(round(min(size) * _LINE), 2)
        drawn: Any = supervision.BoxAnnotator(thickness=thickness).annotate(pixels, detections)
        if self._settings.hide_labels:
            return drawn
        writer = supervision.LabelAnnotator(
            text_color=_ink(ColorPalette.DEFAULT),
            text_scale=supervision.calculate_optimal_text_scale(size),
            text_thickness=max(thickness // 2, 1),
            text_padding=2 * thickness,
        )
        return writer.annotate(drawn, detections, labels=self._labels(detections))

    def _labels(self, detections: Any) -> list[str]:
        """`person 0.87` for each."""
        found = zip(detections.data["class_name"], detections.confidence, strict=True)
        return [str(name) if self._settings.hide_conf else f"{name} {confidence:.2f}" for name, confidence in found]


def _ink(palette: ColorPalette) -> ColorPalette:
    """Black or white, whichever is read on each colour."""
    lightness = [0.299 * colour.r + 0.587 * colour.g + 0.114 * colour.b for colour in palette.colors]
    return ColorPalette([Color.BLACK if light > _BRIGHT else Color.WHITE for light in lightness])
