"""Parses YOLO label files: one object a line, as class and box or as class and outline, normalised to the image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError

Floats = NDArray[np.float32]


class LabelError(Exception):
    """A label file that cannot be used; the image is left out and the reason reported."""


@dataclass(frozen=True)
class Labels:
    """Objects of one image: rows float32 [k,5] (class, xywh normalised), their outlines [p,2] (empty for boxes)."""

    rows: Floats
    outlines: tuple[Floats, ...]
    duplicates: int


def label_path(image: str) -> str:
    """The label file of an image: the last `/images/` becomes `/labels/`, the suffix becomes `.txt`."""
    stem = os.path.splitext(image)[0]  # noqa: PTH122  (strings by the hundred thousand: no Path objects)
    mark, new = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return new.join(stem.rsplit(mark, 1)) + ".txt"


def read_labels(path: str) -> Labels:
    """Reads and checks one label file.

    Raises:
        FileNotFoundError: there is no such file (the image is background).
        LabelError: a row is wrong: not numbers, wrong count, not normalised, negative. Names the line.
        UserError: the file is not text at all.
    """
    raw = Path(path).read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if any(character < " " and character not in "\t\n\r\f\v" for character in text):
        raise UserError(f"Label file {path} is not text (it holds arbitrary bytes); replace or delete it.")
    rows: list[list[float]] = []
    outlines: list[Floats] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        values = _numbers(line, number)
        if len(values) == 5:
            rows.append(values)
            outlines.append(np.zeros((0, 2), np.float32))
        else:
            outline = np.array(values[1:], np.float32).reshape(-1, 2)
            low, high = outline.min(0), outline.max(0)
            rows.append([values[0], *((low + high) / 2).tolist(), *(high - low).tolist()])
            outlines.append(outline)
    return _without_duplicates(np.array(rows, np.float32).reshape(-1, 5), outlines)


def find_class_line(path: str, nc: int) -> tuple[int, int]:
    """(line, class id) of the first row of a label file whose class is outside 0..nc-1."""
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip() and not 0 <= float(line.split()[0]) < nc:
            return number, int(float(line.split()[0]))
    raise ValueError(f"{path} has no class id outside 0..{nc - 1}")


def _numbers(line: str, number: int) -> list[float]:
    try:
        values = [float(token) for token in line.split()]
    except ValueError:
        raise LabelError(f"line {number} is not a row of numbers") from None
    count = len(values)
    if count != 5 and (count < 7 or count % 2 == 0):
        raise LabelError(
            f"line {number} has {count} values; needed are class x y width height, or class and an outline"
        )
    if not all(np.isfinite(values)):
        raise LabelError(f"line {number} holds a value that is not finite")
    if values[0] != int(values[0]):
        raise LabelError(f"line {number} has class id {values[0]:g}, which is no whole number")
    if min(values[1:]) < 0:
        raise LabelError(f"line {number} has a negative coordinate ({min(values[1:]):g})")
    if max(values[1:]) > 1:
        raise LabelError(f"line {number} is not normalised to 0..1 ({max(values[1:]):g})")
    return values


def _without_duplicates(rows: Floats, outlines: list[Floats]) -> Labels:
    _, first = np.unique(rows, axis=0, return_index=True)
    if len(first) < len(rows):
        keep = np.sort(first)
        return Labels(rows[keep], tuple(outlines[i] for i in keep), len(rows) - len(keep))
    return Labels(rows, tuple(outlines), 0)
