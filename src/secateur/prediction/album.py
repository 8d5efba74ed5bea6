"""Writes images and videos with the boxes drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from supervision import VideoInfo, VideoSink

from secateur.data.images import Image
from secateur.errors import UserError
from secateur.files import atomic_write
from secateur.prediction.image_files import write_image
from secateur.prediction.media import Frame
from secateur.prediction.sources import Medium
from secateur.terminal import stderr_silenced

_WRITTEN = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


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
