"""Writes annotated images as a YOLO data set: images, labels and a data.yaml."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import yaml

from secateur.data.convert.frames import Annotated, LabelledImage, find_frames
from secateur.errors import UserError
from secateur.files import write_text

Placing = Literal["link", "copy"]
LabelRow = tuple[int, float, float, float, float]  # class, xywh normalised


@dataclass(frozen=True)
class Converted:
    """Result of a conversion: its data.yaml, number of images and boxes, and skipped or inconsistent annotations."""

    data: Path
    images: int
    boxes: int
    names: tuple[str, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        remarks = f", {len(self.problems)} remarks, first {self.problems[0]}" if self.problems else ""
        return f"{self.data} ({self.images} images, {self.boxes} boxes, {len(self.names)} classes{remarks})"


def write_split(images: Sequence[Annotated], out: Path, split: str, placing: Placing) -> tuple[int, list[str]]:
    """Writes the images of a split and their labels to the new data set.

    Returns:
        Number of boxes written, and notes on skipped or inconsistent annotations.
    """
    frames, problems = find_frames(images)
    boxes = 0
    for image, frame in zip(images, frames, strict=True):
        rows: list[LabelRow] = []
        for box in image.boxes:
            row = _row(box.number, box.corners, frame)
            if row is None:
                problems.append(f"{box.origin} has no area inside its image; skipped")
            elif row not in rows:
                rows.append(row)
        _place(image.source, out, split, image.name, rows, placing)
        boxes += len(rows)
    return boxes, problems


def _row(number: int, corners: tuple[float, float, float, float], frame: LabelledImage) -> LabelRow | None:
    """Pixel corners, clipped to the image, as a label row; None if nothing remains."""
    x0, x1 = (min(max(x, 0.0), frame.width) / frame.width for x in corners[::2])
    y0, y1 = (min(max(y, 0.0), frame.height) / frame.height for y in corners[1::2])
    if x1 <= x0 or y1 <= y0:
        return None
    x0, y0, x1, y1 = frame.turned(x0, y0, x1, y1)
    return number, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _place(source: Path, out: Path, split: str, name: str, rows: Iterable[LabelRow], placing: Placing) -> None:
    """Adds an image (as a link or a copy) and its label file to the new data set."""
    relative = Path(name).with_suffix(source.suffix)
    image = out / "images" / split / relative
    label = (out / "labels" / split / relative).with_suffix(".txt")
    if label.exists():
        raise UserError(f"Two images would have the labels {split}/{relative.with_suffix('.txt')}. Rename one of them.")
    try:
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        if placing == "copy":
            shutil.copyfile(source, image)
        else:
            image.symlink_to(os.path.relpath(source.resolve(), image.parent.resolve()))
        label.write_text("".join(f"{row[0]} {' '.join(f'{value:.6f}' for value in row[1:])}\n" for row in rows))
    except OSError as error:
        raise UserError(f"Cannot write {image}: {error.strerror or error}. Choose another folder.") from error


def write_data(out: Path, splits: Sequence[str], names: Sequence[str]) -> None:
    """Writes the data.yaml of the new data set."""
    entries = {split: f"images/{split}" for split in splits}
    entries.setdefault("val", entries["train"] if "train" in entries else next(iter(entries.values())))
    content = {"path": ".", **entries, "names": dict(enumerate(names))}
    write_text(out / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def leads_out(name: str) -> bool:
    """Whether a file name in an annotation points outside the folder of the images."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"  # a drive


def is_file(path: Path) -> bool:
    """Whether the file exists; False for names that the system does not support."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than the system allows, or with a NUL
        return False
