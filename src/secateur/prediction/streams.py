"""Reads videos, streams and webcams with OpenCV and suppresses its console output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from secateur.data.images import Image
from secateur.prediction.sources import Medium
from secateur.terminal import stderr_silenced

_USUAL_RATE = 30.0  # frames per second, if a camera or file does not state them
_FASTEST = 1000.0


class MediumError(Exception):
    """A medium cannot be used; the message is the reason."""


class Video:
    """An open video.

    Attributes:
        rate: frames per second.
        total: number of frames if the file states it; otherwise 0.
    """

    def __init__(self, capture: Any) -> None:
        self._capture = capture
        rate, total = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.rate = rate if 0 < rate <= _FASTEST else _USUAL_RATE
        # A file without an index reports a huge negative number.
        self.total = int(total) if 0 < total < 1 << 40 else 0

    def frames(self, stride: int = 1) -> Iterator[tuple[int, Image]]:
        """Number, from 1, and pixels BGR uint8 [H, W, 3] of every `stride`-th frame, starting with the first.

        Raises:
            MediumError: there are no frames.
        """
        number = 1
        while (pixels := self._next()) is not None:
            yield number, pixels
            if not all(self._capture.grab() for _ in range(stride - 1)):
                return
            number += stride
        if number == 1:
            raise MediumError("has no readable frames")

    def _next(self) -> Image | None:
        there, pixels = self._capture.read()
        return np.asarray(pixels, np.uint8) if there and pixels is not None else None


@contextmanager
def capture(medium: Medium, timeout: float) -> Iterator[Video]:
    """Opens a video file, a stream or a webcam.

    Args:
        medium: what to open.
        timeout: seconds to wait for a response, and for each frame.

    Raises:
        MediumError: it cannot be opened; the message is the reason.
    """
    try:
        medium.address.encode()
    except UnicodeEncodeError:  # OpenCV would terminate the process
        raise MediumError("has a name that is not UTF-8. Rename it") from None
    with _quiet_opencv():
        with stderr_silenced():
            opened = _opened(medium, timeout)
        try:
            if not opened.isOpened():
                raise MediumError(_why(medium, timeout))
            yield Video(opened)
        finally:
            opened.release()


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Suppresses the output of OpenCV and FFmpeg. Standard error stays open, because reading a camera can take long."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _opened(medium: Medium, timeout: float) -> Any:
    if medium.kind == "camera":
        return cv2.VideoCapture(int(medium.address))
    if medium.kind == "video":
        # FFmpeg interprets text before a colon as a protocol, unless the path is absolute.
        return cv2.VideoCapture(str(Path(medium.address).absolute()), cv2.CAP_FFMPEG)
    limit = max(int(1000 * timeout), 1)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(medium.address, cv2.CAP_FFMPEG, limits)


def _why(medium: Medium, timeout: float) -> str:
    if medium.kind == "camera":
        return "does not exist or is in use"
    if medium.kind != "video":
        return f"does not respond within {timeout:g} s, or sends no video"
    path = Path(medium.address)
    if not path.exists():
        return "does not exist"
    return "is not a video, has no frames or is damaged" if path.stat().st_size else "the file is empty (zero bytes)"
