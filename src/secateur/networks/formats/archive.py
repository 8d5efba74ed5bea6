"""The two containers of `.pt` files of PyTorch, a zip archive and the older stream: locations of pickle and storages.

Nothing is allocated beyond the content of the file: sizes declared in an archive are compared with the file first.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.errors import UserError, told
from secateur.limits import EXPANDED_SLACK, MAX_EXPANDED, MAX_PICKLE, MAX_UNPACKED
from secateur.networks.formats.unpickling import BrokenError, StorageKind, Unpickler

Known = Callable[[str], Any]
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def refuse_bombs(path: Path, archive: zipfile.ZipFile, size: int, text: str | None = None) -> None:
    """Raises a UserError for an archive that would expand to more than its file can hold.

    Args:
        size: bytes of the file.
        text: entries with this in their name may expand, because text compresses; the caller limits them.
    """
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries if text is None or text not in entry.filename)
    if unpacked > MAX_UNPACKED * size:
        raise UserError(
            f"{path} has {size:,} bytes and declares {unpacked:,} unpacked bytes, which is not possible for weights. "
            "If the file is intact, pack it again without compression, as PyTorch does."
        )
    # Python allocates memory for the declared packed size of an entry before it reads the first byte.
    if longest := next((entry for entry in entries if entry.compress_size > size), None):
        raise UserError(
            f"{path} has {size:,} bytes and declares {longest.compress_size:,} for {told(longest.filename, 60)}. "
            "The file is damaged. Copy or export it again."
        )


def refuse_expanded(tensors: Iterable[Tensor], size: int) -> None:
    """Raises a UserError for tensors, of any shape, that expand the few values of a file of `size` bytes to a huge
    size."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if needed > MAX_EXPANDED * size + EXPANDED_SLACK:
        raise UserError(f"its tensors would need {needed:,} bytes, more than its file of {size:,} bytes can hold.")


def read_archive(path: Path, known: Known) -> Any:
    """Content of a zip archive of PyTorch; see `Unpickler` for the supported content."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickled = next(name for name in entries if name.endswith("data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if entries[pickled].file_size > MAX_PICKLE:
            raise BrokenError(f"it has more than {MAX_PICKLE:,} bytes besides its tensors")
        swapped = f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") == b"big"
        storages: dict[str, Tensor] = {}

        def storage(kind: StorageKind, key: str, count: int) -> Tensor:
            if key not in storages:
                data = archive.read(entries[f"{folder}data/{key}"])
                storages[key] = _values(data, kind.dtype, count, swapped=swapped)
            return _same(storages[key], kind, count)

        return Unpickler(io.BytesIO(archive.read(pickled)), known, storage).load()


def read_stream(path: Path, known: Known) -> Any:
    """Content of a file of PyTorch before 1.6: pickles, the last one a list of keys, then the storages."""
    data = path.read_bytes()
    kinds: dict[str, tuple[StorageKind, int]] = {}

    def noted(kind: StorageKind, key: str, count: int) -> Tensor:
        kinds[key] = kind, count
        return torch.empty(count, dtype=kind.dtype, device="meta")  # storages follow the tensors that use them

    start = io.BytesIO(data[:MAX_PICKLE])
    if Unpickler(start, known, noted).load() != _MAGIC or Unpickler(start, known, noted).load() != _PROTOCOL:
        raise BrokenError("it is not a file of PyTorch")
    Unpickler(start, known, noted).load()
    content = start.tell()
    Unpickler(start, known, noted).load()
    keys = Unpickler(start, known, noted).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise BrokenError("it has no storages")
    storages: dict[str, Tensor] = {}
    place = start.tell()
    for key in keys:
        kind, count = kinds[key]
        (length,) = struct.unpack_from("<q", data, place)
        end = place + 8 + length * kind.dtype.itemsize
        if not length >= 0 or end > len(data):
            raise BrokenError("a storage is truncated")
        storages[key] = _values(data[place + 8 : end], kind.dtype, count)
        place = end
    start.seek(content)
    return Unpickler(start, known, lambda kind, key, count: _same(storages[key], kind, count)).load()


def _values(data: bytes, dtype: torch.dtype, count: int, *, swapped: bool = False) -> Tensor:
    """Bytes of a storage as values [n]; there must be exactly `count`."""
    if len(data) < count * dtype.itemsize:
        raise BrokenError("a storage is shorter than declared")
    if not count:
        return torch.empty(0, dtype=dtype)
    values = torch.frombuffer(bytearray(data) if swapped else data, dtype=dtype, count=count)
    if swapped:
        values.untyped_storage().byteswap(dtype)
    return values


def _same(values: Tensor, kind: StorageKind, count: int) -> Tensor:
    """A storage that is referenced again, which must have the same type and size."""
    if values.dtype != kind.dtype or count > values.numel():
        raise BrokenError("a storage is used with different types")
    return values
