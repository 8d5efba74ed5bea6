"""Draws boxes and their names into images by supervision, a colour for each class; writes or shows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import supervision
from supervision import Color, ColorPalette, VideoInfo, VideoSink
from torch import Tensor

from secateur.data.images import Image
from secateur.errors import UserError
from secateur.files import atomic_write
from secateur.prediction.detections import to_detections
from secateur.prediction.files import write_image
from secateur.prediction.media import Frame
from secateur.prediction.predicting import Prediction
from secateur.prediction.settings import DrawSettings
from secateur.prediction.sources import Medium
from secateur.terminal import stderr_silenced

_LINE = 1 / 300  # of the shorter side
_BRIGHT = 150  # of 255: on lighter colours names are written in black
_WRITTEN = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Drawing:
    """A way to draw, with the class names of a detector."""

    def __init__(self, names: Mapping[int, str], settings: DrawSettings) -> None:
        self._names, self._settings = names, settings

    def __call__(self, prediction: Prediction) -> Image:
        """A copy of the image with its boxes: BGR uint8 [H, W, 3]."""
        return self.on(prediction.frame.pixels, prediction.boxes)

    def on(self, pixels: Image, boxes: Tensor) -> Image:
        """A copy of the pixels (BGR uint8 [H, W, 3]) with boxes [n, 6], the best first."""
        pixels = pixels.copy()
        if not len(boxes):
            return pixels
        # The best box is drawn over the others.
        detections = to_detections(boxes.flip(0), self._names)
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


class Album(AbstractContextManager["Album"]):
    """A folder of drawn images and videos; a video is finished when the next medium begins or the album is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._medium: Medium | None = None
        self._sink: Any = None
        self._size = (0, 0)

    def __exit__(self, *failure: Any) -> None:
        self._open.__exit__(*failure)

    def add(self, frame: Frame, drawn: Image) -> None:
        """Writes an image, or adds a frame to the video of its medium."""
        if frame.number is None:
            suffix = PurePath(str(frame.medium)).suffix.lower()
            write_image(self._folder / f"{frame.stem}{suffix if suffix in _WRITTEN else '.jpg'}", drawn)
            return
        if frame.medium is not self._medium:
            self._begin(frame, drawn)
        if drawn.shape[1::-1] != self._size:  # a stream may change its size
            drawn = np.asarray(cv2.resize(drawn, self._size), np.uint8)
        self._sink.write_frame(drawn)

    def _begin(self, frame: Frame, drawn: Image) -> None:
        self._open.close()
        self._medium, self._size = frame.medium, (drawn.shape[1], drawn.shape[0])
        file = self._folder / f"{frame.medium.stem}.mp4"
        self._sink = self._open.enter_context(_video(file, self._size, frame.rate))


@contextmanager
def _video(file: Path, size: tuple[int, int], rate: float) -> Iterator[VideoSink]:
    """An MP4 file that gets its name when it is complete."""
    with atomic_write(file, durable=False) as temporary, ExitStack() as stack:
        sink = VideoSink(str(temporary), VideoInfo(*size, fps=rate))
        try:
            with stderr_silenced():
                sink.__enter__()
        except RuntimeError:
            raise UserError(f"Cannot write the video {file}: OpenCV has no encoder for it; add --nosave.") from None
        stack.push(sink.__exit__)
        yield sink


def window() -> Callable[[Image], None]:
    """What shows drawn frames as they come.

    Raises:
        UserError: this OpenCV, or this machine, has no windows.
    """
    answer = UserError("--view cannot show windows here (opencv-python-headless, or no display); leave it out.")
    # An OpenCV with windows ends the process where there is no display.
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise answer
    try:
        with stderr_silenced():
            cv2.namedWindow("secateur", cv2.WINDOW_NORMAL)
    except cv2.error:
        raise answer from None

    def show(drawn: Image) -> None:
        cv2.imshow("secateur", drawn)
        cv2.waitKey(1)

    return show
