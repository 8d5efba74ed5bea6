"""Reads checkpoints in the format of Secateur and in the formats of the families; nothing in a file is executed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.errors import UserError, shown, told
from secateur.families.family import FAMILIES, family_of
from secateur.files import usable_path
from secateur.limits import MAX_ARGUMENT, MAX_CLASSES
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.networks.formats.container import is_container, read_container
from secateur.networks.formats.records import EXPECTED
from secateur.networks.tensors import flaw_of
from secateur.registry import PLUGINS

FIRST_KIND = "yolov5"
"""Kind of files from the first version, which record no architecture."""


def load_checkpoint(path_or_name: str | Path, cfg: str | Path = "", *, sound: bool = True) -> Checkpoint:
    """Reads a Secateur `.safetensors` or a YOLOv5 `.pt`; official checkpoints that are missing are downloaded.

    Args:
        path_or_name: the file.
        cfg: model YAML or name of the family, for a file that holds only a state dict.
        sound: reject a checkpoint whose weights hold NaN, infinite values or negative variances; if False, such a file
            is read too, for inspection.

    Raises:
        UserError: the file cannot be read; the message states what it is and what is expected.
    """
    checkpoint = _read(_locate(path_or_name), cfg)
    flaw = flaw_of(checkpoint.tensors) if sound else ""
    if flaw:
        raise UserError(
            f"The weights of {path_or_name} hold {told(flaw)} and cannot be used. Use another "
            "checkpoint, such as an earlier one of the same training."
        )
    return checkpoint


def _read(path: Path, cfg: str | Path) -> Checkpoint:
    """The checkpoint in a file."""
    if is_container(path):
        contents = read_container(path)
        return _checked(
            path, Checkpoint(tensors=contents.tensors, masks=contents.masks, **_fields(path, contents.data))
        )
    families = sorted(FAMILIES.values(), key=lambda family: family.fallback)
    readers = [family for family in families if family.reads(path)]
    fallback = [family for family in families if family.fallback]
    return (readers or fallback)[0].read(path, cfg)


def _locate(path_or_name: str | Path) -> Path:
    """The file, downloaded if it is an official one that is missing."""
    path = usable_path(path_or_name)
    if path.is_dir():
        raise UserError(f"{path} is a folder. {EXPECTED}.")
    if not path.exists() and not any(family.fetch(path) for family in FAMILIES.values()):
        raise UserError(f"The file {path} does not exist. {EXPECTED}.")
    return path


def _fields(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields stored in the metadata."""
    kind = str(data.get("architecture", FIRST_KIND))
    if kind not in FAMILIES:
        raise UserError(
            f"{path} holds a network of the unknown architecture {shown(kind)}. Set the environment variable "
            f"{PLUGINS} to the file that registers it."
        )
    try:
        history = tuple(_history_entry(entry) for entry in data["history"])
        sizes = [entry.settings.get("image_size") for entry in history]
        known = [data["image_size"]] if "image_size" in data else [size for size in sizes if isinstance(size, int)]
        fields: dict[str, Any] = {
            "architecture": FAMILIES[kind].architecture.from_dict(data["topology"]),
            "names": {int(k): str(v) for k, v in data["names"].items()},
            "strides": tuple(float(s) for s in data["strides"]),
            "training": dict(data["training"]),
            "plan": None if data["plan"] is None else dict(data["plan"]),
            "history": history,
            "image_size": int(known[-1]) if known and known[-1] is not None else None,
        }
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError, UserError) as error:
        raise UserError(f"{path} has damaged metadata ({told(error, 100)}). {EXPECTED}.") from error
    return fields


def _history_entry(data: Mapping[str, Any]) -> HistoryEntry:
    """A history entry; its parts must be dicts."""
    entry = HistoryEntry(**data)
    if not isinstance(entry.verb, str) or not all(
        isinstance(part, dict) for part in (entry.settings, entry.metrics, entry.cost)
    ):
        raise ValueError("an entry of its history is damaged")
    return entry


def _checked(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Rejects metadata with inconsistent or impossible values."""
    if not all(math.isfinite(stride) and stride > 0 for stride in checkpoint.strides):
        raise UserError(f"{path} has invalid strides. {EXPECTED}.")
    if len(checkpoint.names) > MAX_CLASSES:
        raise UserError(f"{path} has {len(checkpoint.names):,} names for {checkpoint.nc:,} classes. {EXPECTED}.")
    flaw = family_of(checkpoint).flaw(checkpoint)
    if flaw:
        raise UserError(f"{path} has {flaw}. {EXPECTED}.")
    if checkpoint.image_size is not None and not 0 < checkpoint.image_size <= MAX_ARGUMENT:
        raise UserError(f"{path} has the invalid image size {shown(checkpoint.image_size)}. {EXPECTED}.")
    return checkpoint
