"""Writes what is in each box as a picture of its own, in a folder for each class."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from secateur.prediction.pictures import write_picture
from secateur.prediction.predicting import Prediction


def write_crops(folder: Path, prediction: Prediction, names: Mapping[int, str]) -> None:
    """Writes `<class name>/<stem>-<k>.jpg` for the k-th best box of the picture, the best being 1."""
    frame = prediction.frame
    for place, (x1, y1, x2, y2, _, number) in enumerate(prediction.boxes.tolist(), 1):
        top, left = math.floor(y1), math.floor(x1)
        # A box thinner than a pixel at the edge still shows the last one.
        crop = frame.pixels[min(top, frame.pixels.shape[0] - 1) : max(math.ceil(y2), top + 1)]
        crop = crop[:, min(left, frame.pixels.shape[1] - 1) : max(math.ceil(x2), left + 1)]
        kind = re.sub(r"[^\w .-]", "_", names.get(int(number), "")).strip(". ") or str(int(number))
        write_picture(folder / kind / f"{frame.stem}-{place}.jpg", crop)
