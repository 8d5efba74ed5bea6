"""Writes what is in each box as an image of its own, in a folder for each class."""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from secateur.errors import told
from secateur.prediction.image_files import write_image
from secateur.prediction.predicting import Prediction

LOG = logging.getLogger("secateur")
LONGEST = 100
"""Bytes of a folder's name; systems allow 255 for a name, and some of them 260 for a whole path."""
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)(\.|$)", re.IGNORECASE)
"""Names of devices on Windows, with any ending."""


def crop_folders(names: Mapping[int, str]) -> dict[int, str]:
    """A folder name for each class that any system takes, another for each class; one line of the log lists changes.

    A name that is a folder name stays. Of several that would be the same, or the same but for case, one keeps the
    plain form and the others get their class number.
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
        LOG.info("Crops of classes whose names are no folder names: %s%s.", ", ".join(changed[:5]), more)
    return folders


def write_crops(folder: Path, prediction: Prediction, folders: Mapping[int, str]) -> None:
    """Writes `<folder of the class>/<stem>-<k>.jpg` for the k-th best box of the image, the best being 1."""
    frame = prediction.frame
    for place, (x1, y1, x2, y2, _, number) in enumerate(prediction.boxes.tolist(), 1):
        top, left = math.floor(y1), math.floor(x1)
        # A box thinner than a pixel at the edge still shows the last one.
        crop = frame.pixels[min(top, frame.pixels.shape[0] - 1) : max(math.ceil(y2), top + 1)]
        crop = crop[:, min(left, frame.pixels.shape[1] - 1) : max(math.ceil(x2), left + 1)]
        write_image(folder / folders.get(int(number), str(int(number))) / f"{frame.stem}-{place}.jpg", crop)


def _folder_name(name: str) -> str:
    """A name with what some system refuses replaced by _ or cut off; empty where nothing is left."""
    text = re.sub(r"[^\w .-]", "_", unicodedata.normalize("NFC", name))
    text = text.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip(". ")
    return f"_{text}" if _RESERVED.match(text) else text
