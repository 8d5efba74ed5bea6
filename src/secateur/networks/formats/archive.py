"""The two containers of PyTorch's `.pt` files, a zip archive and the older stream: where pickle and storages lie.

Nothing is made larger than what the file holds: what an archive declares is compared with the file before it is read.
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
    """UserError for an archive that would grow to more than its file explains.

    Args:
        size: bytes of the file.
        text: entries with this in their name may grow, as text does; the caller limits them.
    """
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries if text is None or text not in entry.filename)
    if unpacked > MAX_UNPACKED * size:
        raise UserError(
            f"{path} has {size:,} bytes and says it unpacks to {unpacked:,}, which no weights do; it is refused. "
            "PyTorch does not compress: pack it again without compression if it is whole."
        )
    # Python takes memory for as many packed bytes as an entry declares, before it reads the first.
    if longest := next((entry for entry in entries if entry.compress_size > size), None):
        raise UserError(
            f"{path} has {size:,} bytes and says that {told(longest.filename, 60)} takes {longest.compress_size:,} of "
            "them; the file is damaged: copy or export it again."
        )


def refuse_expanded(tensors: Iterable[Tensor], size: int) -> None:
    """UserError for tensors that repeat the few values in a file of `size` bytes until they are huge."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if needed > MAX_EXPANDED * size + EXPANDED_SLACK:
        raise UserError(f"its tensors would take {needed:,} bytes, which a file of {size:,} bytes does not hold.")


def read_archive(path: Path, known: Known) -> Any:
    """The content of a zip archive of PyTorch; see `Unpickler` for what may be in it."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickled = next(name for name in entries if name.endswith("data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if entries[pickled].file_size > MAX_PICKLE:
            raise BrokenError(f"more than {MAX_PICKLE:,} bytes besides its tensors")
        swapped = f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") == b"big"
        storages: dict[str, Tensor] = {}

        def storage(kind: StorageKind, key: str, count: int) -> Tensor:
            if key not in storages:
                data = archive.read(entries[f"{folder}data/{key}"])
                storages[key] = _values(data, kind.dtype, count, swapped=swapped)
            return _same(storages[key], kind, count)

        return Unpickler(io.BytesIO(archive.read(pickled)), known, storage).load()


def read_stream(path: Path, known: Known) -> Any:
    """The content of a file of PyTorch before 1.6: pickles, the last one a list of keys, then the storages."""
    data = path.read_bytes()
    kinds: dict[str, tuple[StorageKind, int]] = {}

    def noted(kind: StorageKind, key: str, count: int) -> Tensor:
        kinds[key] = kind, count
        return torch.empty(count, dtype=kind.dtype, device="meta")  # the storages come after what is made of them

    start = io.BytesIO(data[:MAX_PICKLE])
    if Unpickler(start, known, noted).load() != _MAGIC or Unpickler(start, known, noted).load() != _PROTOCOL:
        raise BrokenError("no file of PyTorch")
    Unpickler(start, known, noted).load()
    content = start.tell()
    Unpickler(start, known, noted).load()
    keys = Unpickler(start, known, noted).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise BrokenError("no storages")
    storages: dict[str, Tensor] = {}
    place = start.tell()
    for key in keys:
        kind, count = kinds[key]
        (length,) = struct.unpack_from("<q", data, place)
        end = place + 8 + length * kind.dtype.itemsize
        if not length >= 0 or end > len(data):
            raise BrokenError("a storage that is cut off")
        storages[key] = _values(data[place + 8 : end], kind.dtype, count)
        place = end
    start.seek(content)
    return Unpickler(start, known, lambda kind, key, count: _same(storages[key], kind, count)).load()


def _values(data: bytes, dtype: torch.dtype, count: int, *, swapped: bool = False) -> Tensor:
    """The bytes of a storage as values [n], of which there have to be `count`."""
    if len(data) < count * dtype.itemsize:
        raise BrokenError("a storage that is shorter than it says")
    if not count:
        return torch.empty(0, dtype=dtype)
    values = torch.frombuffer(bytearray(data) if swapped else data, dtype=dtype, count=count)
    if swapped:
        values.untyped_storage().byteswap(dtype)
    return values


def _same(values: Tensor, kind: StorageKind, count: int) -> Tensor:
    """A storage that is named again, which has to be the same."""
    if values.dtype != kind.dtype or count > values.numel():
        raise BrokenError("a storage that is two things")
    return values
