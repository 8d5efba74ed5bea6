"""Reads checkpoints of forks of YOLOv5: classes with other names and locations are matched to blocks by structure.

Pruning forks derive their own classes (`pruned_common.C3`, `C3Pruned`, `yolo_pruned.ModelPruned`) to give each layer
its remaining width. Their code is not needed: a class named after a known block is read as that block, and a class with
another name is matched by the structure of its children.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.errors import UserError, told
from secateur.networks.formats.records import EXPECTED, Record

LOG = logging.getLogger("secateur")
MODEL = "models.yolo.DetectionModel"
_MODELS = {"Model", "DetectionModel"}
_PLACES = ("models", "pruned", "yolo", "common", "modules", "nets", "utils_pruned")
"""Words, one of which must be in the module path of a class for it to be treated as a block under another name."""


def fork_kind(name: str, blocks: Collection[str]) -> str | None:
    """The block that a class which is not part of upstream is read as; None if it cannot be a block.

    A class is read as a block if it is named after a block or a model of upstream, possibly with `Pruned` or `Prune` in
    its name. A class with another name, in a module where forks define layers, keeps its name and is later matched by
    structure. Nothing from the file is imported or called.

    Args:
        name: module and class.
        blocks: class names of the blocks of upstream.
    """
    place, _, label = name.rpartition(".")
    stem = _stem(label)
    if stem in _MODELS:
        return MODEL
    if stem == "Detect":
        return "models.yolo.Detect"
    if stem in blocks:
        return f"models.common.{stem}"
    return name if any(word in place.split(".")[0] for word in _PLACES) and label[:1].isupper() else None


@dataclass(frozen=True)
class Shape:
    """Structure of the children of a block, in the order of their creation.

    Attributes:
        kind: upstream name of the block.
        children: type of each child.
        names: their upstream names.
    """

    kind: str
    children: tuple[str, ...]
    names: tuple[str, ...]


SHAPES = (
    Shape("Conv", ("conv2d", "norm", "activation"), ("conv", "bn", "act")),
    Shape("C3", ("Conv", "Conv", "Conv", "Bottlenecks"), ("cv1", "cv2", "cv3", "m")),
    Shape("SPPF", ("Conv", "Conv", "pool"), ("cv1", "cv2", "m")),
    Shape("SPP", ("Conv", "Conv", "pools"), ("cv1", "cv2", "m")),
    Shape("Bottleneck", ("Conv", "Conv"), ("cv1", "cv2")),
)
_PLAIN = {"Conv2d": "conv2d", "BatchNorm2d": "norm", "SyncBatchNorm": "norm", "MaxPool2d": "pool"}


def recognise(model: Record, blocks: Collection[str]) -> dict[str, str]:
    """Assigns unknown blocks in a model the kind with the same structure, and renames their children as in upstream.

    Returns:
        Class name -> kind, for these classes.

    Raises:
        UserError: the structure of a block matches no known block.
    """
    fitted: dict[str, str] = {}
    for record in list(_inside_first(model)):
        label = record.kind.rpartition(".")[2]
        if not record.kind or record.kind.startswith("torch.") or label in blocks or label in (*_MODELS, "Detect"):
            continue
        children = record.modules()
        looks = tuple(_look(child) for child in children.values())
        shape = next((shape for shape in SHAPES if shape.children == looks), None)
        if shape is None or (shape.kind == "Bottleneck" and not isinstance(record.get("add"), bool)):
            raise UserError(f"it holds a {told(record.kind, 60)}, which is not a supported block. {EXPECTED}.")
        record.rename(f"models.common.{shape.kind}", dict(zip(children, shape.names, strict=True)))
        fitted[label] = shape.kind
    for label, kind in fitted.items():
        LOG.info("Its %s layers have the structure of %s and are read as such.", label, kind)
    return fitted


def upstream_rows(config: dict[str, Any], fitted: Mapping[str, str]) -> dict[str, Any]:
    """A model.yaml whose rows use the block names of upstream; forks store the classes themselves.

    Args:
        fitted: result of `recognise`.
    """
    rows = {}
    for part in ("backbone", "head"):
        lines = config.get(part)
        if isinstance(lines, list):
            rows[part] = [_upstream_row(row, fitted) for row in lines]
    return {**config, **rows}


def _upstream_row(row: Any, fitted: Mapping[str, str]) -> Any:
    if not isinstance(row, list) or len(row) < 3:
        return row
    name = row[2]
    if isinstance(name, type) and issubclass(name, Record):
        place, _, label = name.origin.rpartition(".")
        name = f"nn.{label}" if place.startswith("torch.nn.") else label
    if isinstance(name, str):
        name = fitted.get(name, _stem(name))
    return [*row[:2], name, *row[3:]]


def _stem(label: str) -> str:
    """Name of a class without the affixes of pruning forks."""
    return label.replace("Pruned", "").replace("Prune", "").strip("_")


def _inside_first(record: Record) -> Iterator[Record]:
    """All records of a module tree, children first."""
    for child in record.modules().values():
        yield from _inside_first(child)
    yield record


def _look(record: Record) -> str:
    """Type of a child, in the vocabulary of `Shape`."""
    label = record.kind.rpartition(".")[2]
    if record.kind.startswith("torch.nn.modules.activation."):
        return "activation"
    if label in ("Sequential", "ModuleList"):
        kinds = {child.kind.rpartition(".")[2] for child in record.modules().values()}
        return "pools" if kinds == {"MaxPool2d"} else "Bottlenecks" if kinds <= {"Bottleneck"} else label
    return _PLAIN.get(label, label)
