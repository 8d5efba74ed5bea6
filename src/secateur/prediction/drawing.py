"""Draws boxes and class names with supervision, one colour per class, and writes or shows the images."""

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

_LINE = 1 / 300  # line width as a share of the shorter side
_BRIGHT = 150  # of 255: labels on lighter colours are black
_WRITTEN = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Drawing:
    """Drawing settings with the class names of a detector."""

    def __init__(self, names: Mapping[int, str], settings: DrawSettings) -> None:
        self._names, self._settings = names, settings

    def __call__(self, prediction: Prediction) -> Image:
        """A copy of the image, BGR uint8 [H, W, 3], with its boxes drawn."""
        return self.on(prediction.frame.pixels, prediction.boxes)

    def on(self, pixels: Image, boxes: Tensor) -> Image:
        """A copy of the pixels (BGR uint8 [H, W, 3]) with boxes float32 [n, 6] drawn; boxes are ordered best first."""
        pixels = pixels.copy()
        if not len(boxes):
            return pixels
        # Draw the best box last, on top of the others.
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
        """`person 0.87` for each detection."""
        found = zip(detections.data["class_name"], detections.confidence, strict=True)
        return [str(name) if self._settings.hide_conf else f"{name} {confidence:.2f}" for name, confidence in found]


def _ink(palette: ColorPalette) -> ColorPalette:
    """Black or white, whichever contrasts with each colour."""
    lightness = [0.299 * colour.r + 0.587 * colour.g + 0.114 * colour.b for colour in palette.colors]
    return ColorPalette([Color.BLACK if light > _BRIGHT else Color.WHITE for light in lightness])


class Album(AbstractContextManager["Album"]):
    """A folder of drawn images and videos. A video is completed when the next medium starts or the album is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._medium: Medium | None = None
        self._sink: Any = None
        self._size = (0, 0)

    def __exit__(self, *failure: Any) -> None:
        self._open.__exit__(*failure)

    def add(self, frame: Frame, drawn: Image) -> None:
        """Writes an image (BGR uint8 [H, W, 3]), or adds a frame to the video of its medium."""
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
    """An MP4 file that is renamed to its final name when it is complete."""
    with atomic_write(file, durable=False) as temporary, ExitStack() as stack:
        sink = VideoSink(str(temporary), VideoInfo(*size, fps=rate))
        try:
            with stderr_silenced():
                sink.__enter__()
        except RuntimeError:
            raise UserError(
                f"Cannot write the video {file}: OpenCV has no encoder for it. Add --nosave to skip images and videos."
            ) from None
        stack.push(sink.__exit__)
        yield sink


def window() -> Callable[[Image], None]:
    """A function that shows drawn frames in a window.

    Raises:
        UserError: OpenCV has no GUI support, or the machine has no display.
    """
    answer = UserError("--view cannot show windows here (opencv-python-headless, or no display). Remove it.")
    # OpenCV with GUI support terminates the process if there is no display.
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
