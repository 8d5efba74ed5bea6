"""Parses YOLO label files: one object per line, a class and a box or an outline, normalised to the image."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError

Floats = NDArray[np.float32]
LEAST, MOST = -0.01, 1.01
"""Coordinates in this range are rounding errors of tools, and are clipped to 0..1."""
_NO_OUTLINE: Floats = np.zeros((0, 2), np.float32)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


class LabelError(Exception):
    """An unusable label file; the image is skipped and the reason reported."""


@dataclass(frozen=True)
class Labels:
    """Objects of one image.

    Attributes:
        rows: float32 [k, 5], class and xywh normalised.
        outlines: float32 [p, 2] for each row, empty for boxes.
        duplicates: number of duplicate rows that were removed.
        clipped: number of coordinates just outside the image that were clipped.
        flat: line numbers of boxes of zero size, which are ignored.
        has_rows: whether the file has any rows.
        six: if all rows have six values whose last may be a confidence, the reason to reject them if other label files
            have no confidences; otherwise "".
    """

    rows: Floats = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    outlines: tuple[Floats, ...] = ()
    duplicates: int = 0
    clipped: int = 0
    flat: tuple[int, ...] = ()
    has_rows: bool = False
    six: str = ""


def label_path(image: str) -> str:
    """The usual label file of an image: the last `/images/` becomes `/labels/`, the suffix becomes `.txt`."""
    stem = os.path.splitext(image)[0]  # noqa: PTH122  (strings by the hundred thousand: no Path objects)
    mark, new = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return new.join(stem.rsplit(mark, 1)) + ".txt"


def read_labels(path: str, key_points: tuple[int, int] | None = None) -> Labels:
    """Reads and checks one label file.

    Args:
        path: the file.
        key_points: number of key points and values of each (2 or 3), if rows hold a box and key points; these are
            dropped.

    Raises:
        OSError: the file cannot be read.
        LabelError: a row is invalid: not numbers, wrong count, outside the image. The message names the line.
        UserError: the file is not text.
    """
    raw = Path(path).read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROL.search(text):
        raise UserError(f"Label file {path} is not text (it holds arbitrary bytes). Replace or delete it.")
    lines = [(number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split())]
    rows = _plain_boxes([words for _, words in lines])
    if rows is None:
        return _rows(lines, key_points)
    return _without_duplicates(Labels(rows, (_NO_OUTLINE,) * len(rows), has_rows=bool(lines)))


def find_class_line(path: str, nc: int) -> tuple[int, int]:
    """(line, class id) of the first row of a label file whose class is outside 0..nc-1."""
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip() and not 0 <= float(line.split()[0]) < nc:
            return number, int(float(line.split()[0]))
    raise ValueError(f"{path} has no class id outside 0..{nc - 1}")


def _plain_boxes(lines: list[list[str]]) -> Floats | None:
    """The rows of a file of boxes without anything to report, which is the usual case; otherwise None."""
    if any(len(words) != 5 for words in lines):
        return None
    try:
        values = np.array([float(word) for words in lines for word in words]).reshape(-1, 5)
    except ValueError:
        return None
    ids, boxes = values[:, 0], values[:, 1:]
    # All comparisons with NaN are False.
    if not (((boxes >= 0) & (boxes <= 1)).all() and np.isfinite(ids).all() and (ids % 1 == 0).all()):
        return None
    rows = np.asarray(values, np.float32)
    return rows if (rows[:, 3:] > 0).all() else None


def _rows(lines: list[tuple[int, list[str]]], key_points: tuple[int, int] | None) -> Labels:
    """The objects of any file, parsed line by line.

    Raises:
        LabelError: see `read_labels`.
    """
    six = bool(lines) and not key_points and all(len(words) == 6 for _, words in lines)
    rows: list[list[float]] = []
    outlines: list[Floats] = []
    flat: list[int] = []
    clipped = 0
    for number, words in lines:
        values = _numbers(words, number, key_points, six)
        coordinates = [min(max(value, 0.0), 1.0) for value in values[1:]]
        clipped += sum(inside != value for inside, value in zip(coordinates, values[1:], strict=True))
        if len(coordinates) == 4:
            outline, box = _NO_OUTLINE, coordinates
        else:
            outline = np.array(coordinates, np.float32).reshape(-1, 2)
            low, high = outline.min(0), outline.max(0)
            box = [*((low + high) / 2).tolist(), *(high - low).tolist()]
        if min(np.float32(box[2]), np.float32(box[3])) > 0:
            rows.append([values[0], *box])
            outlines.append(outline)
        else:
            flat.append(number)
    found = Labels(
        np.array(rows, np.float32).reshape(-1, 5),
        tuple(outlines),
        clipped=clipped,
        flat=tuple(flat),
        has_rows=bool(lines),
        six=_wrong_count(lines[0][0], 6) if six else "",
    )
    return _without_duplicates(found)


def _numbers(words: list[str], number: int, key_points: tuple[int, int] | None, six: bool) -> list[float]:
    """Class and coordinates of a line: four, or those of an outline.

    Args:
        words: words of the line.
        number: line number.
        key_points: see `read_labels`.
        six: whether the last of six values may be a confidence.

    Raises:
        LabelError: see `read_labels`.
    """
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise LabelError(f"line {number} is not a row of numbers") from None
    count = len(values)
    if key_points:
        whole = 5 + key_points[0] * key_points[1]
        if count not in (5, whole):
            raise LabelError(
                f"line {number} has {count} values; kpt_shape {list(key_points)} needs {whole}, or 5 without key points"
            )
    elif count != 5 and (count < 7 or count % 2 == 0) and not (six and 0 <= values[5] <= 1):
        raise LabelError(_wrong_count(number, count))
    if not all(np.isfinite(values)):
        raise LabelError(f"line {number} holds a value that is not finite")
    if values[0] != int(values[0]):
        raise LabelError(f"line {number} has class id {values[0]:g}, which is not a whole number")
    used = values[:5] if key_points or six else values
    low, high = min(used[1:]), max(used[1:])
    if low < LEAST:
        raise LabelError(f"line {number} has a negative coordinate ({low:g})")
    if high > MOST:
        hint = "; if the row holds key points, add kpt_shape to data.yaml" if high == 2 and count > 7 else ""
        raise LabelError(f"line {number} is not normalised to 0..1 ({high:g}){hint}")
    return used


def _wrong_count(number: int, count: int) -> str:
    hint = "; key points need kpt_shape in data.yaml" if count > 6 and (count - 5) % 3 == 0 else ""
    return f"line {number} has {count} values; expected class x y width height, or class and an outline{hint}"


def _without_duplicates(labels: Labels) -> Labels:
    rows = labels.rows
    first = {row: i for i, row in reversed(list(enumerate(map(tuple, rows.tolist()))))}
    if len(first) == len(rows):
        return labels
    keep = sorted(first.values())
    outlines = tuple(labels.outlines[i] for i in keep)
    return replace(labels, rows=rows[keep], outlines=outlines, duplicates=len(rows) - len(keep))
