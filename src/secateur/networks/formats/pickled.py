"""Reads foreign `.pt` files as data: all classes in them become inert records, and nothing is executed."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.errors import UserError, told
from secateur.networks.formats.archive import Known, read_archive, read_stream, refuse_bombs, refuse_expanded
from secateur.networks.formats.records import EXPECTED, Record, known_names, refuse_repetition
from secateur.networks.formats.unpickling import INERT, MAKERS, STORAGES, ForeignError


def read_records(path: Path, blocks: Collection[str], others: Callable[[str], str | None]) -> Any:
    """The content of a `.pt` file: containers, numbers, strings, tensors on the CPU, and records.

    Memory use is proportional to the file, independent of sizes declared in it. The tensors are views of read-only
    memory.

    Args:
        path: the file.
        blocks: class names of the known blocks of YOLOv5.
        others: returns, for the full name of any other class, the kind of its records, or None.

    Raises:
        UserError: the file cannot be read; the message states what it is instead.
    """
    zipped = _refuse_by_content(path)
    upstream = {*known_names(blocks), *INERT}

    @cache
    def known(name: str) -> Any:
        if name in MAKERS or name in STORAGES:
            return MAKERS.get(name) or STORAGES[name]
        kind = name if name in upstream else others(name)
        return kind and type(name.rpartition(".")[2], (Record,), {"__slots__": (), "origin": kind})

    return _read(path, zipped, known)


def read_plain(path: Path) -> Any:
    """The content of a `.pt` file without classes: containers, numbers, strings, tensors on the CPU.

    Raises:
        UserError: the file cannot be read; the message states what it is instead.
    """
    content = _read(path, _refuse_by_content(path), lambda name: MAKERS.get(name) or STORAGES.get(name))
    try:
        refuse_repetition(content)
        refuse_expanded(_tensors(content), path.stat().st_size)
        return _owned(content)
    except UserError as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path} holds endlessly nested lists. {EXPECTED}.") from error


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _owned(value: Any) -> Any:
    """The same content with writable tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _owned(part) for key, part in value.items()}
    return type(value)(map(_owned, value)) if isinstance(value, list | tuple) else value


def _read(path: Path, zipped: bool, known: Known) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about read-only memory
            return (read_archive if zipped else read_stream)(path, known)
    except ForeignError as error:
        raise UserError(_foreign(path, error.name)) from error
    except Exception as error:  # a malicious or damaged file can fail anywhere
        raise UserError(f"{path} is damaged or not a PyTorch checkpoint. {EXPECTED}.") from error


def _refuse_by_content(path: Path) -> bool:
    """Rejects files that their first bytes or their table of contents identify; returns whether the file is a zip
    archive."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    if size == 0:
        raise UserError(f"{path} is empty. {EXPECTED}.")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a git-LFS pointer, not the file itself (run `git lfs pull`). {EXPECTED}.")
    if start.startswith(b"PK"):
        if not _is_zip(path):
            raise UserError(f"{path} is truncated after {size:,} bytes (an incomplete download). {EXPECTED}.")
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                refuse_bombs(path, archive, size)
        except UserError:
            raise
        except (
            Exception
        ) as error:  # a damaged table of contents fails in many ways: a bad name, an unknown version, ...
            raise UserError(f"{path} is a damaged zip archive. {EXPECTED}.") from error
        if any("/code/" in name for name in names):
            raise UserError(f"{path} is a TorchScript archive, which holds a program instead of a network. {EXPECTED}.")
        if not any(name.endswith("data.pkl") for name in names):
            raise UserError(f"{path} is a zip archive, but not one of PyTorch. {EXPECTED}.")
    elif not start.startswith(b"\x80"):
        what = "a text file" if _is_text(start) else "not a PyTorch file"
        raise UserError(f"{path} is {what}. {EXPECTED}.")
    return start.startswith(b"PK")


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a table of contents for several disks
        return False


def _is_text(start: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)


def _foreign(path: Path, name: str) -> str:
    """The error message for a file with an unknown class."""
    if name.startswith(("models.", "utils.", "ultralytics.")):
        return f"{path} holds a {told(name, 60)}, which is not a supported block. {EXPECTED}."
    return f"{path} contains the foreign code {told(name, 60)}, which was not run. The file is rejected. {EXPECTED}."
