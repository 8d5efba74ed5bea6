"""Writes predictions to files: YOLO label files, JSON lines, images, and crops by class."""

from __future__ import annotations

import json
import logging
import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from secateur.data.images import Image
from secateur.errors import UserError, told
from secateur.files import atomic_write
from secateur.prediction.predicting import Prediction

LOG = logging.getLogger("secateur")
LONGEST = 100
"""Maximum bytes of a folder name; systems allow 255 for a name, and some only 260 for a complete path."""
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)(\.|$)", re.IGNORECASE)
"""Device names on Windows, reserved with any extension."""


def write_image(file: Path, pixels: Image) -> None:
    """Writes pixels (BGR uint8 [H, W, 3]) in the format of the file extension.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        done, content = cv2.imencode(file.suffix, pixels)
    except cv2.error:
        done = False
    if not done:  # JPEG allows at most 65535 pixels per side, WebP 16383
        height, width = pixels.shape[:2]
        raise UserError(
            f"Cannot write {file}: {width} x {height} pixels exceed the limit of its format. Add --nosave to skip "
            "images and videos."
        )
    with atomic_write(file, durable=False) as temporary:
        temporary.write_bytes(content.tobytes())


def write_labels(folder: Path, prediction: Prediction, *, confidence: bool) -> None:
    """Writes `<stem>.txt`, or `<stem>_<number>.txt` for a frame; writes nothing without detections.

    Args:
        folder: folder of the label files.
        prediction: prediction for one image.
        confidence: whether to add the confidence as a sixth column.
    """
    if not len(prediction.boxes):
        return
    height, width = prediction.frame.pixels.shape[:2]
    lines = []
    for x1, y1, x2, y2, score, number in prediction.boxes.tolist():
        place = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        row = (*place, score) if confidence else place
        lines.append(" ".join([str(int(number)), *(f"{value:.6g}" for value in row)]))
    with atomic_write(folder / f"{prediction.frame.stem}.txt", durable=False) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def json_line(prediction: Prediction, names: Mapping[int, str]) -> str:
    """One JSON line without a newline: file, frame of a video, size in pixels and detections, with boxes as x1, y1, x2,
    y2 in pixels.
    """
    frame = prediction.frame
    row: dict[str, Any] = {"file": str(frame.medium)}
    if frame.number is not None:
        row["frame"] = frame.number
    row["height"], row["width"] = frame.pixels.shape[:2]
    row["detections"] = [
        {
            "class": int(number),
            "name": names.get(int(number), str(int(number))),
            "confidence": round(score, 5),
            "box": [round(value, 2) for value in box],
        }
        for *box, score, number in prediction.boxes.tolist()
    ]
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def crop_folders(names: Mapping[int, str]) -> dict[int, str]:
    """A unique folder name per class that is valid on all systems. Changed names are logged in one line.

    Valid names are kept. Of several names that would be equal when case is ignored, one keeps the plain form and the
    others get their class id.
    """
    folders: dict[int, str] = {}
    taken: set[str] = set()
    plain = {number: _folder_name(name) or str(number) for number, name in names.items()}
    for number in sorted(plain, key=lambda number: (plain[number] != names[number], number)):
        folder = plain[number]
        while folder.casefold() in taken:
            folder = f"{plain[number]}-{number}" if folder == plain[number] else f"{folder}_"
        taken.add(folder.casefold())
        folders[number] = folder
    changed = [f"{told(repr(names[n]), 40)} in {told(folders[n], 40)}" for n in sorted(names) if folders[n] != names[n]]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        LOG.info(
            "Class names that are not valid folder names are changed for crops: %s%s.", ", ".join(changed[:5]), more
        )
    return folders


def write_crops(folder: Path, prediction: Prediction, folders: Mapping[int, str]) -> None:
    """Writes `<folder of the class>/<stem>-<k>.jpg` for the k-th best box of the image, from 1."""
    frame = prediction.frame
    for place, (x1, y1, x2, y2, _, number) in enumerate(prediction.boxes.tolist(), 1):
        top, left = math.floor(y1), math.floor(x1)
        # A box thinner than one pixel at the edge still covers the last pixel.
        crop = frame.pixels[min(top, frame.pixels.shape[0] - 1) : max(math.ceil(y2), top + 1)]
        crop = crop[:, min(left, frame.pixels.shape[1] - 1) : max(math.ceil(x2), left + 1)]
        write_image(folder / folders.get(int(number), str(int(number))) / f"{frame.stem}-{place}.jpg", crop)


def _folder_name(name: str) -> str:
    """A name with invalid characters replaced by _ or removed; empty if nothing remains."""
    text = re.sub(r"[^\w .-]", "_", unicodedata.normalize("NFC", name))
    text = text.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip(". ")
    return f"_{text}" if _RESERVED.match(text) else text
