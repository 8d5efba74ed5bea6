"""Keeps the arrays and texts of a checked split in one file, from which nothing but plain data is read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError
from secateur.files import atomic_write


def save_arrays(places: Iterable[Path], signature: str, text: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Writes the first of the files that can be written.

    Args:
        places: files.
        signature: what it is the result for.
        text: plain JSON data.
        arrays: by name.
    """
    # ASCII escapes keep file names that are no valid UTF-8.
    packed = np.frombuffer(json.dumps(text, ensure_ascii=True).encode(), np.uint8)
    for place in places:
        try:
            with atomic_write(place) as temporary, temporary.open("wb") as stream:
                np.savez(stream, text=packed, signature=np.array(signature), **arrays)
            return
        except UserError:
            continue  # a cache that cannot be written costs only time


def load_arrays(place: Path, signature: str, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Text and arrays of a file; None where it is not there, of another signature, or would grow in memory.

    Raises:
        Exception: of any kind, where the file is damaged.
    """
    if not place.is_file():
        return None
    with zipfile.ZipFile(place) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > place.stat().st_size:
            return None  # ours are not compressed: this one would grow
    with np.load(place, allow_pickle=False) as data:
        if str(data["signature"]) != signature:
            return None
        return json.loads(data["text"].tobytes()), {name: data[name] for name in names}


def are_sound(arrays: Mapping[str, NDArray[Any]], images: int, classes: int) -> bool:
    """Whether all that the arrays of an index say of each other holds.

    Args:
        arrays: shapes, labels, offsets, points, point_offsets.
        images: their number.
        classes: ids are below it.
    """
    labels, points, point_offsets = arrays["labels"], arrays["points"], arrays["point_offsets"]
    rows = len(labels)
    return (
        arrays["shapes"].shape == (images, 2)
        and labels.shape == (rows, 5)
        and points.shape == (len(points), 2)
        and _are_within(labels[:, :1], classes - 1)
        and not (labels[:, 0] % 1).any()
        and _are_within(labels[:, 1:], 1)
        and _are_within(points, 1)
        and len(arrays["offsets"]) == images + 1
        and _are_offsets(arrays["offsets"], rows)
        and len(point_offsets) in (0, rows + 1)
        and (not len(point_offsets) or _are_offsets(point_offsets, len(points)))
    )


def _are_within(values: NDArray[Any], most: float) -> bool:
    return bool(((values >= 0) & (values <= most)).all())  # neither holds for NaN


def _are_offsets(offsets: NDArray[Any], count: int) -> bool:
    whole = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1
    return bool(whole and offsets[0] == 0 and offsets[-1] == count and (np.diff(offsets) >= 0).all())
