"""Images for the tests of the data package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

MakeData = Callable[..., Path]


def smooth_image(height: int, width: int, seed: int) -> np.ndarray:
    """Image without sharp edges, so that two ways of resampling it agree closely."""
    cells = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3)).astype(np.float32)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
