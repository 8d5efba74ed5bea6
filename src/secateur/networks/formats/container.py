"""File format of a checkpoint: a safetensors file with tensors, masks as bits, and JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from secateur.errors import UserError, shown, told
from secateur.files import atomic_write
from secateur.networks.formats.records import EXPECTED

_KEY, _VERSION, _MASKS = "secateur", 1, "masks/"


@dataclass(frozen=True)
class Contents:
    """Content of a file.

    Attributes:
        tensors: by name, on the CPU.
        masks: tensor name -> bool mask of the same shape.
        data: data that JSON can hold.
    """

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    data: dict[str, Any]


def is_container(path: Path) -> bool:
    """Whether a file has this format, from its content: eight bytes of header length, then JSON.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    if start[8:9] == b"{":
        return True
    return path.suffix == ".safetensors" and not start.startswith((b"PK", b"version ")) and start != b""


def read_container(path: Path) -> Contents:
    """Reads a file.

    Raises:
        UserError: the file cannot be read; the message states what it is instead.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            data = _metadata(path, file.metadata() or {})
            # Copies, because a tensor that maps the file would change with it.
            stored: dict[str, Tensor] = {key: file.get_tensor(key).clone() for key in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or truncated ({told(error)}). {EXPECTED}.") from error
    tensors = {name: tensor for name, tensor in stored.items() if not name.startswith(_MASKS)}
    packed = {name.removeprefix(_MASKS): bits for name, bits in stored.items() if name.startswith(_MASKS)}
    masks = {name: _unpacked(path, name, bits, tensors[name].shape) for name, bits in packed.items() if name in tensors}
    return Contents(tensors, masks, data)


def _metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise UserError(f"{path} is a safetensors file of another program. {EXPECTED}.")
    try:
        data: dict[str, Any] = json.loads(metadata[_KEY])
        version = int(data["version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} has damaged metadata ({told(repr(error))}). {EXPECTED}.") from error
    if version > _VERSION:
        raise UserError(
            f"{path} was written by a newer Secateur (format {shown(version)}). Upgrade Secateur to read it."
        )
    return data


def write_container(contents: Contents, path: Path) -> None:
    """Writes a file atomically: after a failure, the previous state is unchanged.

    Raises:
        UserError: the folder is not writable or the disk is full.
    """
    tensors = contents.tensors | {_MASKS + name: _packed(mask) for name, mask in contents.masks.items()}
    # A single key, because the order of several keys in the file would differ between processes.
    metadata = {_KEY: json.dumps({"version": _VERSION, **contents.data}, default=_plain)}
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            # safetensors wraps errors of the operating system, such as a full disk, in its own error.
            raise UserError(f"Cannot write {path}: {error}. Choose another folder, or free disk space.") from error


def _packed(mask: Tensor) -> Tensor:
    """A mask as bits, uint8 [ceil(n / 8)]; as bytes it would need half the size of fp16 weights."""
    return torch.from_numpy(np.packbits(mask.detach().cpu().numpy().astype(bool).ravel()))


def _unpacked(path: Path, name: str, bits: Tensor, shape: torch.Size) -> Tensor:
    """The inverse: bool with the shape of its tensor; masks that are stored unpacked are returned as they are.

    Raises:
        UserError: it is not a mask for that tensor.
    """
    if bits.dtype not in (torch.bool, torch.uint8) or (bits.shape != shape and bits.shape != (-(-shape.numel() // 8),)):
        raise UserError(f"{path} has a mask of {told(name, 60)} that does not match its shape. {EXPECTED}.")
    if bits.shape == shape:
        return bits.bool()
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=shape.numel()).astype(bool)).reshape(shape)


def _plain(value: Any) -> Any:
    """Converts values in settings that JSON does not support."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} cannot be saved in a checkpoint")
