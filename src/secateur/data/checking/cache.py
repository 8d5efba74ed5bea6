"""Stores the arrays and texts of a checked split in one file that is read as plain data only."""

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
    """Writes the first of the files that is writable.

    Args:
        places: candidate files.
        signature: signature of the data that the result belongs to.
        text: data that JSON can hold.
        arrays: arrays by name.
    """
    # ASCII escapes preserve file names that are not valid UTF-8.
    packed = np.frombuffer(json.dumps(text, ensure_ascii=True).encode(), np.uint8)
    for place in places:
        try:
            with atomic_write(place) as temporary, temporary.open("wb") as stream:
                np.savez(stream, text=packed, signature=np.array(signature), **arrays)
            return
        except UserError:
            continue  # a missing cache only costs time


def load_arrays(place: Path, signature: str, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Text and arrays of a file; None if it does not exist, has another signature, or is compressed.

    Raises:
        Exception: of any type, if the file is damaged.
    """
    if not place.is_file():
        return None
    with zipfile.ZipFile(place) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > place.stat().st_size:
            return None  # our files are not compressed, so this one could expand
    with np.load(place, allow_pickle=False) as data:
        if str(data["signature"]) != signature:
            return None
        return json.loads(data["text"].tobytes()), {name: data[name] for name in names}


def are_sound(arrays: Mapping[str, NDArray[Any]], images: int, classes: int) -> bool:
    """Whether the arrays of an index are consistent with each other.

    Args:
        arrays: shapes [n, 2], labels [m, 5], offsets [n + 1], points [p, 2], point_offsets [m + 1].
        images: number of images.
        classes: number of classes.
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
    return bool(((values >= 0) & (values <= most)).all())  # both are False for NaN


def _are_offsets(offsets: NDArray[Any], count: int) -> bool:
    whole = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1
    return bool(whole and offsets[0] == 0 and offsets[-1] == count and (np.diff(offsets) >= 0).all())
