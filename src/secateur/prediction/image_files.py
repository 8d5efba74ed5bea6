"""Writes one image to a file, as the kind that its suffix names."""

from __future__ import annotations

from pathlib import Path

import cv2

from secateur.data.images import Image
from secateur.errors import UserError
from secateur.files import atomic_write


def write_image(file: Path, pixels: Image) -> None:
    """Writes BGR pixels as the kind of image that the suffix names.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        done, content = cv2.imencode(file.suffix, pixels)
    except cv2.error:
        done = False
    if not done:  # a JPEG has at most 65535 pixels on a side, WebP 16383
        height, width = pixels.shape[:2]
        raise UserError(f"Cannot write {file}: {width} x {height} pixels are too many for its format; add --nosave.")
    with atomic_write(file, durable=False) as temporary:
        temporary.write_bytes(content.tobytes())
