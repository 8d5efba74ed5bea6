"""Writes one picture to a file, as the kind that its suffix names."""

from __future__ import annotations

from pathlib import Path

import cv2

from secateur.data.images import Image
from secateur.errors import UserError
from secateur.files import atomic_write


def write_picture(file: Path, pixels: Image) -> None:
    """Writes BGR pixels as the kind of picture that the suffix names.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        _, content = cv2.imencode(file.suffix, pixels)
    except cv2.error as error:  # a JPEG has at most 65535 pixels on a side
        raise UserError(f"Cannot write {file}: {pixels.shape[1]} x {pixels.shape[0]} pixels are too many.") from error
    with atomic_write(file, durable=False) as temporary:
        temporary.write_bytes(content.tobytes())
