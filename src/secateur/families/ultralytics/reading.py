"""Reads a `.pt` of Ultralytics as data: its classes become records, and no code in it is executed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.errors import UserError, shown, told
from secateur.families.ultralytics.architecture import Ultralytics, checked_args
from secateur.families.ultralytics.chains import lengths_of
from secateur.families.ultralytics.description import checked_description
from secateur.families.ultralytics.network import MODELS, UltralyticsNetwork
from secateur.families.ultralytics.package import installed_version, numbers
from secateur.limits import MAX_ARGUMENT, MAX_CLASSES, MAX_PICKLE
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.formats.archive import refuse_expanded
from secateur.networks.formats.pickled import read_records
from secateur.networks.formats.records import Record, plain_data, refuse_endless, tensors_of

_MARK = b"ultralytics.nn.tasks"
_NAMES = re.compile(
    r"(ultralytics\.(nn|utils)\.[\w.]+|torch\.nn\.modules\.\w+\.\w+|torchvision\.transforms\.[\w.]+|"
    r"types\.SimpleNamespace|torch\.torch_version\.TorchVersion)"
)
"""Classes that become records; they are not looked up."""
_EXPECTED = "Expected a .pt of YOLOv8, 9, 10, 11, 12 or 26 as `YOLO.train` saves it"


def is_theirs(file: Path) -> bool:
    """Whether a pickle names models of the package; only its beginning is read, and nothing is executed."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                name = next((name for name in archive.namelist() if name.endswith("data.pkl")), "")
                if not name:
                    return False
                with archive.open(name) as data:
                    return _MARK in data.read(MAX_PICKLE)
        with file.open("rb") as data:
            start = data.read(MAX_PICKLE)
            return start.startswith(b"\x80") and _MARK in start
    except Exception:  # a damaged archive fails in many ways; its reader reports the error
        return False


def read_file(path: Path) -> Checkpoint:
    """Reads the checkpoint in a file; averaged weights are preferred.

    Raises:
        UserError: the file cannot be read; the message states what it is and what is expected.
    """
    fields = fields_of(path)
    model = _model_in(path, fields)
    try:
        refuse_endless(model)
        return _checkpoint(path, model, fields)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {str(error).rstrip('.')}{_versions(fields)}. {_EXPECTED}.") from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is a damaged checkpoint of Ultralytics ({told(repr(error))}). {_EXPECTED}.") from error


def fields_of(path: Path) -> dict[str, Any]:
    """The fields of a file of the package, by name; classes are records.

    Raises:
        UserError: the file is damaged, or contains foreign code.
    """
    content = read_records(path, (), lambda name: name if _NAMES.fullmatch(name) else None)
    return content if isinstance(content, dict) else {"model": content}


def _model_in(path: Path, fields: Mapping[str, Any]) -> Record:
    """The record of the model."""
    kinds = {f"ultralytics.nn.tasks.{name}" for name in MODELS.values()}
    found = [value for value in (fields.get("ema"), fields.get("model")) if isinstance(value, Record)]
    for record in found:
        if record.kind in kinds:
            return record
    what = told(found[0].kind, 60) if found else "no model"
    raise UserError(f"{path} holds {'a ' if found else ''}{what}, which Secateur cannot prune. {_EXPECTED}.")


def _checkpoint(path: Path, model: Record, fields: Mapping[str, Any]) -> Checkpoint:
    tensors = {f"model.{name}": tensor for name, tensor in tensors_of(model)}
    refuse_expanded(tensors.values(), path.stat().st_size)
    description = checked_description(plain_data(model.get("yaml")))
    task = MODELS[Ultralytics(description, 1).task]
    if model.kind.rpartition(".")[2] != task:
        raise UserError(f"it holds a {told(model.kind, 60)}, but its model.yaml describes a {task}")
    head = list(model.modules()["model"].modules().values())[-1]
    names = _names(plain_data(model.get("names")), _classes(head, description))
    options = plain_data(fields.get("train_args"))
    architecture = Ultralytics(
        description,
        len(names),
        _channels(tensors),
        checked_args(options if isinstance(options, Mapping) else {}),
    )
    network = architecture.build(names)
    chains = _chains(network, model)
    if chains:
        architecture = replace(architecture, chains=chains)
        network = architecture.build(names)
    architecture = replace(architecture, numbers=_numbers(network, model))
    checkpoint = Checkpoint(
        architecture,
        {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()},
        names,
        network.strides,
        training={"source": "ultralytics", "version": str(plain_data(fields.get("version")) or "")},
        image_size=_image_size(options),
    )
    checkpoint.build()  # rejects tensors that do not match
    return checkpoint


def _classes(head: Record, description: Mapping[str, Any]) -> int:
    """Number of classes of the last layer."""
    if head.kind.endswith(".Classify"):
        return int(head.modules()["linear"].get("weight").shape[0])
    nc = head.get("nc", description["nc"])
    if type(nc) is not int or not 0 < nc <= MAX_CLASSES:
        raise UserError(f"its head has {shown(nc)} classes")
    return nc


def _names(given: Any, nc: int) -> dict[int, str]:
    """A name for every class; missing ones get placeholders."""
    pairs = given.items() if isinstance(given, dict) else enumerate(given if isinstance(given, list) else ())
    known = {int(key): str(value) for key, value in pairs}
    return {number: known.get(number, f"class{number}") for number in range(nc)}


def _channels(tensors: Mapping[str, Tensor]) -> int:
    """Image channels, from the first convolution."""
    first = next(tensor for name, tensor in tensors.items() if name.endswith("weight") and tensor.ndim == 4)
    return int(first.shape[1])


def _image_size(options: Any) -> int | None:
    size = options.get("imgsz") if isinstance(options, Mapping) else None
    size = max(size) if isinstance(size, list) and size and all(type(side) is int for side in size) else size
    return size if type(size) is int and 0 < size <= MAX_ARGUMENT else None


def _numbers(network: UltralyticsNetwork, model: Record) -> dict[str, dict[str, int]]:
    """Integers of the modules of a cut file that differ from the description."""
    recorded = dict(_records(model))
    changed: dict[str, dict[str, int]] = {}
    for module, kept in network.whole_numbers():
        record = recorded.get(module)
        if record is None:
            continue
        pairs = {name: record.get(name, value) for name, value in kept.items()}
        other = {name: value for name, value in pairs.items() if value != kept[name]}
        if not all(type(value) is int and 0 < value <= MAX_ARGUMENT for value in other.values()):
            raise UserError(f"its module {told(module, 60)} has the unsupported value {shown(other)}")
        if other:
            changed[module] = other
    return changed


def _chains(network: UltralyticsNetwork, model: Record) -> dict[str, int]:
    """Lengths of the chains of a file that are shorter than in the description."""
    recorded = dict(_records(model))
    found = {name: len(recorded[name].modules()) for name in lengths_of(network.model) if name in recorded}
    return {name: length for name, length in found.items() if length < lengths_of(network.model)[name]}


def _records(record: Record, prefix: str = "") -> Iterator[tuple[str, Record]]:
    yield prefix, record
    for name, inner in record.modules().items():
        yield from _records(inner, f"{prefix}.{name}" if prefix else name)


def _versions(fields: Mapping[str, Any]) -> str:
    """ " (written by 9.0, installed is 8.4)" if the version of the file is newer than the package."""
    theirs, ours = str(plain_data(fields.get("version")) or ""), installed_version()
    if numbers(theirs) <= numbers(ours) or not ours:
        return ""
    return f" (the file was written by ultralytics {told(theirs, 20)}, but {ours} is installed; upgrade the package)"
