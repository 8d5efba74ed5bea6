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


def save_arrays(
    places: Iterable[Path], signature: str, text: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
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


def load_arrays(
    place: Path, signature: str, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
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
