"""Tables of a checked data set: images and box sizes by split, objects by class, label locations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from secateur.data.index import Index

WIDE = 140  # characters per line if the output is not a terminal
SMALL, MEDIUM = 32, 96
"""Sides in pixels: COCO's small boxes have an area below 32^2, medium ones below 96^2."""


def print_data(indices: Mapping[str, Index], names: Mapping[int, str]) -> None:
    """Prints the tables, then the findings about splits and files.

    Args:
        indices: the checked splits by name.
        names: class id -> name.
    """
    console = Console(width=None if Console().is_terminal else WIDE, highlight=False, markup=False, emoji=False)
    console.print(splits_table(indices))
    console.print(sizes_table(indices))
    console.print(classes_table(indices, names))
    for split, index in indices.items():
        for folder, count in index.label_folders:
            console.print(f"{split}: labels of {count} images in {folder}", soft_wrap=True)


def splits_table(indices: Mapping[str, Index]) -> Table:
    """Numbers of images and label files per split."""
    table = _table(
        "Split", "Images", "Objects", "Without\nlabel file", "With an\nempty one", "Skipped", "Unused\nlabel files"
    )
    for split, index in indices.items():
        counts = index.counts
        figures = (len(index), len(index.labels), counts.missing, counts.empty, counts.corrupt, counts.unused)
        table.add_row(split, *map(str, figures))
    return table


def sizes_table(indices: Mapping[str, Index]) -> Table:
    """Boxes per split by area in pixels of the image, and the median width and height."""
    headings = (
        f"Small\n(< {SMALL}^2 px)",
        "Medium",
        f"Large\n(>= {MEDIUM}^2 px)",
        "Median box\n(px)",
        "Median box\n(% of image)",
    )
    table = _table("Split", *headings)
    for split, index in indices.items():
        sides = box_sides(index)
        if not len(sides):
            table.add_row(split, *("-" for _ in headings))
            continue
        area = sides.prod(1)
        small, large = int((area < SMALL**2).sum()), int((area >= MEDIUM**2).sum())
        width, height = np.median(sides, axis=0)
        x, y = 100 * np.median(index.labels[:, 3:], axis=0)
        figures = small, len(area) - small - large, large, f"{width:.0f} x {height:.0f}", f"{x:.1f} x {y:.1f}"
        table.add_row(split, *map(str, figures))
    return table


def classes_table(indices: Mapping[str, Index], names: Mapping[int, str]) -> Table:
    """Objects of each class in each split."""
    counts = {
        split: np.bincount(index.labels[:, 0].astype(np.int64), minlength=len(names))
        for split, index in indices.items()
    }
    table = _table("Class", *(f"{split}\nobjects" for split in counts))
    for number, name in names.items():
        table.add_row(f"{number} {name}", *(str(split[number]) for split in counts.values()))
    return table


def box_sides(index: Index) -> NDArray[np.float64]:
    """Width and height in pixels of the image of all objects: float64 [m, 2]."""
    shapes = np.repeat(index.shapes, np.diff(index.offsets), axis=0)
    return np.asarray(index.labels[:, 3:].astype(np.float64) * shapes[:, ::-1], np.float64)


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
