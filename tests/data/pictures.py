"""Images for the tests of the data package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow

from secateur.data.config import load_data_config
from secateur.data.images import read_image
from secateur.data.index import Index, scan

MakeData = Callable[..., Path]
GOOD = "0 0.5 0.5 0.25 0.25\n"
"""A label."""


def smooth_image(height: int, width: int, seed: int) -> np.ndarray:
    """Image without sharp edges, so that two ways of resampling it agree closely."""
    cells = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3)).astype(np.float32)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def scanned(file: Path, split: str = "train", **options: bool) -> Index:
    return scan(load_data_config(file), split, progress=False, **options)


def turned(file: Path, orientation: int, size: tuple[int, int] = (60, 40)) -> None:
    """A JPEG that is stored with this width and height, black with a white block at x 18..30, y 12..20."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[12:20, 18:30] = 255
    exif = Pillow.Exif()
    exif[0x112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels).save(file, exif=exif, quality=98)


def block(file: str) -> list[float]:
    """The box, x y width height in 0..1, of what is white in the image as it is read."""
    image = read_image(file)[..., 0] > 128
    y, x = np.nonzero(image)
    height, width = image.shape
    x0, x1, y0, y1 = x.min() / width, (x.max() + 1) / width, y.min() / height, (y.max() + 1) / height
    return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
