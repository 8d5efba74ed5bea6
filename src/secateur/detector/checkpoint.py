"""Checkpoints: everything about one detector in one file, read and written without executing anything.

Ours is one `.safetensors` file: tensors and masks, and in its metadata under the key "secateur" JSON with all the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from secateur.detector.download import fetch, is_official
from secateur.detector.model import Detector
from secateur.detector.records import EXPECTED
from secateur.detector.stock import read_stock
from secateur.detector.topology import Topology
from secateur.errors import UserError
from secateur.files import atomic_write

_KEY, _VERSION, _MASKS = "secateur", 1, "masks/"


@dataclass(frozen=True)
class Stage:
    """One step of a detector's history: the verb, its settings, what was measured, and what the detector cost after."""

    verb: str
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """Everything about one detector: tensors and plain data only.

    Attributes:
        topology: its blocks, with the widths that it had before any cut.
        tensors: state dict; the shapes are the widths.
        names: class id -> name.
        strides: pixels a cell of each level.
        masks: tensor name -> mask of the same shape, for weights that are to stay zero.
        training: training arguments and state, JSON data.
        plan: what was cut, as the pruning package writes it.
        history: stages from the first to the last.
    """

    topology: Topology
    tensors: dict[str, Tensor]
    names: dict[int, str]
    strides: tuple[float, ...]
    masks: dict[str, Tensor] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    history: tuple[Stage, ...] = ()

    @staticmethod
    def of(detector: Detector, *, like: Checkpoint | None = None, **changes: Any) -> Checkpoint:
        """A checkpoint with copies of the detector's tensors on the CPU.

        Args:
            detector: any detector.
            like: masks, training, plan and history are taken from here.
            changes: fields that are set instead, by their names.
        """
        tensors = {k: _own(v) for k, v in detector.state_dict().items()}
        base = Checkpoint(detector.topology, tensors, dict(detector.names), detector.strides)
        if like is not None:
            base = replace(base, masks=like.masks, training=like.training, plan=like.plan, history=like.history)
        return replace(base, **changes)

    def detector(self) -> Detector:
        """The detector, fp32, on the CPU, in eval mode.

        Raises:
            UserError: topology and tensors do not belong together.
        """
        # Built without memory or random numbers: every tensor is replaced right away.
        with torch.device("meta"):
            detector = Detector(self.topology, self.names)
        detector.set_tensors(self.tensors)
        detector.head.strides = self.strides
        return detector.eval()

    def detector_for(self, names: Mapping[int, str]) -> Detector:
        """The detector for these classes, to be trained on: a head for another number of classes starts afresh.

        Widths of a cut detector, anchors and every other tensor stay.
        """
        nc = len(names)
        if nc == self.topology.nc:
            detector = self.detector()
            detector.names = dict(names)
            return detector
        topology = self.topology.with_classes(nc)
        with torch.device("meta"):
            detector = Detector(topology, names)
        head = f"model.{len(topology.blocks) - 1}.m."
        outputs = detector.na * detector.no
        tensors = dict(self.tensors)
        for name, old in self.tensors.items():
            if name.startswith(head) and name.endswith(".weight"):
                fresh = torch.nn.Conv2d(old.shape[1], outputs, 1)
                tensors[name] = fresh.weight.detach()
                assert fresh.bias is not None
                tensors[name.removesuffix("weight") + "bias"] = fresh.bias.detach()
        detector.set_tensors(tensors)
        detector.head.strides = self.strides
        detector.initialize_biases()
        return detector.eval()

    def half(self) -> Checkpoint:
        """The same with floating-point tensors in fp16: half the file; loading widens them again."""
        return replace(self, tensors={k: v.half() if v.is_floating_point() else v for k, v in self.tensors.items()})


def _own(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _packed(mask: Tensor) -> Tensor:
    """A mask as bits, uint8 [ceil(n / 8)]: as bytes it would take half as much room again as fp16 weights."""
    return torch.from_numpy(np.packbits(mask.detach().cpu().numpy().astype(bool).ravel()))


def _unpacked(bits: Tensor, shape: torch.Size) -> Tensor:
    """The inverse: bool of the shape of its tensor; masks of files that hold them as they are come back as they are."""
    if bits.shape == shape:
        return bits.bool()
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=shape.numel()).astype(bool)).reshape(shape)


@dataclass(frozen=True)
class Header:
    """A checkpoint without the values of its tensors.

    Attributes:
        path: the file.
        format: "secateur" or "yolov5".
        file_bytes: its size.
        shapes: tensor name -> shape.
        topology, names, strides, training, plan, history: as in `Checkpoint`.
    """

    path: Path
    format: str
    file_bytes: int
    shapes: dict[str, tuple[int, ...]]
    topology: Topology
    names: dict[int, str]
    strides: tuple[float, ...]
    training: dict[str, Any]
    plan: dict[str, Any] | None
    history: tuple[Stage, ...]

    def detector(self) -> Detector:
        """The detector on the meta device: shapes, and nothing to run."""
        with torch.device("meta"):
            detector = Detector(self.topology, self.names)
            detector.set_tensors({k: torch.empty(shape) for k, shape in self.shapes.items()})
        detector.head.strides = self.strides
        return detector.eval()


def load_checkpoint(path_or_name: str | Path) -> Checkpoint:
    """Reads a Secateur `.safetensors` or a YOLOv5 `.pt`; official names that are not here are fetched.

    Raises:
        UserError: one sentence that says what the file is and what is expected.
    """
    path = _locate(path_or_name)
    if not _is_safetensors(path):
        stock = read_stock(path)
        tensors = {k: _own(v) for k, v in stock.tensors.items()}
        return Checkpoint(stock.topology, tensors, stock.names, stock.strides, training=stock.training)
    with _Opened(path) as file:
        data, keys = file.data, file.keys
        tensors = {k: file.tensor(k) for k in keys if not k.startswith(_MASKS)}
        packed = {k.removeprefix(_MASKS): file.tensor(k) for k in keys if k.startswith(_MASKS)}
        masks = {k: _unpacked(v, tensors[k].shape) for k, v in packed.items() if k in tensors}
    return Checkpoint(tensors=tensors, masks=masks, **_fields(path, data))


def read_header(path_or_name: str | Path) -> Header:
    """What `info` tells about a file; of our own files no tensor is read.

    Raises:
        UserError: as `load_checkpoint`.
    """
    path = _locate(path_or_name)
    size = path.stat().st_size
    if not _is_safetensors(path):
        stock = read_stock(path)
        shapes = {k: tuple(v.shape) for k, v in stock.tensors.items()}
        return Header(
            path, "yolov5", size, shapes, stock.topology, stock.names, stock.strides, stock.training, None, ()
        )
    with _Opened(path) as file:
        data = file.data
        shapes = {k: file.shape(k) for k in file.keys if not k.startswith(_MASKS)}
    return Header(path=path, format=_KEY, file_bytes=size, shapes=shapes, **_fields(path, data))


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Writes a `.safetensors` file atomically: after a failure the old file, or none, is there.

    Raises:
        UserError: the suffix is another one, the folder cannot be written or the disk is full.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"Cannot save a checkpoint as {path}; its name must end in .safetensors.")
    data = {
        "version": _VERSION,
        "topology": checkpoint.topology.to_dict(),
        "names": {str(k): v for k, v in checkpoint.names.items()},
        "strides": list(checkpoint.strides),
        "training": checkpoint.training,
        "plan": checkpoint.plan,
        "history": [asdict(stage) for stage in checkpoint.history],
    }
    tensors = {k: _own(v) for k, v in checkpoint.tensors.items()}
    tensors |= {_MASKS + k: _packed(v) for k, v in checkpoint.masks.items()}
    # One key only: with several, their order in the file would be another in every process.
    metadata = {_KEY: json.dumps(data, default=_plain)}
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            # safetensors hides the operating system's error (a full disk, say) in one of its own.
            raise UserError(f"Cannot write {path}: {error}; choose another place or free some space.") from error


def check_topology(checkpoint: Checkpoint, topology: Topology) -> None:
    """Refuses a topology (`--cfg`) that is not the network of the weights; classes and anchors may differ.

    Raises:
        UserError: naming the first block that differs.
    """
    ours, theirs = checkpoint.topology, topology
    if len(ours.blocks) != len(theirs.blocks):
        raise UserError(
            f"The model file (--cfg) has {len(theirs.blocks)} blocks and the weights have {len(ours.blocks)}: they are "
            "different networks; leave --cfg out to use the network of the weights."
        )
    for i, (a, b) in enumerate(zip(ours.blocks, theirs.blocks, strict=True)):
        same_sources = ours.absolute_sources()[i] == theirs.absolute_sources()[i]
        if (a.kind, a.repeats, a.args) != (b.kind, b.repeats, b.args) or not same_sources:
            raise UserError(
                f"Block {i} is {_row(b)} in the model file (--cfg) and {_row(a)} in the weights: they are different "
                "networks; leave --cfg out to use the network of the weights."
            )
    if ours.activation != theirs.activation or ours.channels != theirs.channels:
        raise UserError(
            f"The model file (--cfg) has {theirs.activation} on {theirs.channels} image channels and the weights have "
            f"{ours.activation} on {ours.channels}; leave --cfg out to use the network of the weights."
        )


def _row(block: Any) -> str:
    return f"{block.repeats} x {block.kind}{list(block.args)} of {list(block.sources)}"


def transfer(detector: Detector, checkpoint: Checkpoint) -> int:
    """Copies every tensor whose name and shape agree, except anchors, into the detector; returns how many.

    The start of fine-tuning a network that differs from the checkpoint: a head of another number of classes is skipped.
    """
    copied = 0
    with torch.no_grad():
        for name, target in detector.state_dict().items():
            source = checkpoint.tensors.get(name)
            if source is not None and source.shape == target.shape and not name.endswith(".anchors"):
                target.copy_(source)
                copied += 1
    return copied


def _locate(path_or_name: str | Path) -> Path:
    """The file, fetched if it is an official one that is not here."""
    path = Path(path_or_name)
    if path.is_dir():
        raise UserError(f"{path} is a folder; {EXPECTED}.")
    if not path.exists():
        if not is_official(path.name):
            raise UserError(f"There is no file {path}; {EXPECTED}.")
        fetch(path)
    return path


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of header length, then JSON."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    if start[8:9] == b"{":
        return True
    return path.suffix == ".safetensors" and not start.startswith((b"PK", b"version ")) and start != b""


class _Opened:
    """An open safetensors file whose errors are sentences."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Opened:
        try:
            self._file = safe_open(self.path, framework="pt", device="cpu")
            self._file.__enter__()
            metadata = self._file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.path} is damaged or cut off ({error}); {EXPECTED}.") from error
        if _KEY not in metadata:
            raise UserError(f"{self.path} is a safetensors file of another program; {EXPECTED}.")
        try:
            self.data: dict[str, Any] = json.loads(metadata[_KEY])
            version = int(self.data["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} has broken metadata ({error!r}); {EXPECTED}.") from error
        if version > _VERSION:
            raise UserError(
                f"{self.path} was written by a newer Secateur (format {version}); upgrade Secateur to read it."
            )
        self.keys: list[str] = sorted(self._file.keys())
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.__exit__(*exc)

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        # A copy: a tensor that maps the file would change with it.
        return tensor.clone()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())


def _fields(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that metadata holds."""
    try:
        fields: dict[str, Any] = {
            "topology": Topology.from_dict(data["topology"]),
            "names": {int(k): str(v) for k, v in data["names"].items()},
            "strides": tuple(float(s) for s in data["strides"]),
            "training": dict(data["training"]),
            "plan": data["plan"],
            "history": tuple(Stage(**stage) for stage in data["history"]),
        }
    except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path} has broken metadata ({error}); {EXPECTED}.") from error
    if not all(math.isfinite(s) and s > 0 for s in fields["strides"]):
        raise UserError(f"{path} has broken strides; {EXPECTED}.")
    return fields


def _plain(value: Any) -> Any:
    """Values that JSON does not know but settings hold."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} cannot be saved in a checkpoint")
