"""Checkpoints: everything about one network in one file, read and written without executing anything.

Ours is one `.safetensors` file: tensors and masks, and in its metadata under the key "secateur" JSON with all the rest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from secateur.detector.architecture import ARCHITECTURES, Architecture, DetectionNetwork, is_detection_network
from secateur.detector.architectures.module import PlainModule
from secateur.detector.architectures.yolov5 import YOLOv5
from secateur.detector.classes import knows_classes
from secateur.detector.formats.container import Contents, is_container, read_container, write_container
from secateur.detector.formats.download import fetch, is_official
from secateur.detector.formats.records import EXPECTED
from secateur.detector.formats.state_dict import network_of, read_state
from secateur.detector.formats.stock import read_stock
from secateur.detector.fresh_head import head_tensors, start_afresh_, with_room_for
from secateur.detector.model import Detector
from secateur.detector.soundness import flaw_of
from secateur.detector.tensors import set_tensors_
from secateur.detector.topology import Topology
from secateur.errors import UserError, shown, told
from secateur.files import usable_path
from secateur.limits import MAX_ARGUMENT, MAX_CLASSES
from secateur.registry import PLUGINS


@dataclass(frozen=True)
class Stage:
    """One step of a detector's history: the verb, its settings, what was measured, and what the detector cost after."""

    verb: str
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """Everything about one network: tensors and plain data only.

    Attributes:
        architecture: what builds the network, with the widths that it had before any cut.
        tensors: state dict; the shapes are the widths.
        names: class id -> name.
        strides: pixels a cell of each level.
        masks: tensor name -> mask of the same shape, for weights that are to stay zero.
        training: training arguments and state, JSON data.
        plan: what was cut, as the pruning package writes it.
        history: stages from the first to the last.
        image_size: px of the images that it was trained or pruned for; None where nobody said.
    """

    architecture: Architecture
    tensors: dict[str, Tensor]
    names: dict[int, str]
    strides: tuple[float, ...]
    masks: dict[str, Tensor] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    history: tuple[Stage, ...] = ()
    image_size: int | None = None

    @staticmethod
    def of(network: nn.Module, *, like: Checkpoint | None = None, **changes: Any) -> Checkpoint:
        """A checkpoint with copies of the network's tensors on the CPU.

        Args:
            network: a `DetectionNetwork`, or any other network; the latter can be built again from this checkpoint, but
                not from a file of it (see `into`).
            like: masks, training, plan, history and image size are taken from here.
            changes: fields that are set instead, by their names.

        Raises:
            UserError: the network says what it is built from, but is no `DetectionNetwork`.
        """
        tensors = {k: _own(v) for k, v in network.state_dict().items()}
        if is_detection_network(network):
            known = cast(DetectionNetwork, network)
            base = Checkpoint(known.architecture, tensors, dict(known.names), tuple(known.strides))
        else:
            base = Checkpoint(PlainModule.of(network, len(changes.get("names", ()))), tensors, {}, ())
        if like is not None:
            kept = ("masks", "training", "plan", "history", "image_size")
            base = replace(base, **{name: getattr(like, name) for name in kept})
        return replace(base, **changes)

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self.architecture.nc

    @property
    def single_cls(self) -> bool:
        """Whether it has one class in place of all classes of the data set that it was trained on (--single-cls)."""
        stages = [stage.settings for stage in self.history if "single_cls" in stage.settings]
        notes = self.training.get("settings", self.training)
        last = stages[-1] if stages else notes if isinstance(notes, Mapping) else {}
        return self.nc == 1 and last.get("single_cls") is True

    @property
    def topology(self) -> Topology:
        """The blocks of a network of the YOLOv5 family.

        Raises:
            UserError: it is another network.
        """
        if not isinstance(self.architecture, YOLOv5):
            raise UserError(f"The checkpoint holds a {self.architecture}, which is no network of the YOLOv5 family.")
        return self.architecture.topology

    def detector(self) -> Detector:
        """The detector, fp32, on the CPU, in eval mode.

        For another architecture than YOLOv5's it is that one's network, which offers the same (`DetectionNetwork`); for
        a plain module, that module.

        Raises:
            UserError: architecture and tensors do not belong together, or no file can build the network.
        """
        return self._built(self.architecture, self.names, self.tensors)

    def detector_for(self, names: Mapping[int, str]) -> Detector:
        """The detector for these classes, to be trained on: a head that does not know them starts afresh.

        Widths of a cut detector, anchors and every other tensor stay.

        Raises:
            UserError: as `detector`, or a tensor of the head cannot start afresh.
        """
        if knows_classes(self.names, names):
            return self._built(self.architecture, names, self.tensors)
        architecture = self.architecture.with_classes(len(names))
        head = head_tensors(architecture)
        detector = self._built(architecture, names, with_room_for(head, self.tensors))
        start_afresh_(detector, head)
        return detector

    def into(self, network: nn.Module) -> nn.Module:
        """A copy of a network with these tensors, every layer as wide as its tensors are; mode and device stay.

        The way back for networks that no file can build: give the network as it was before it was cut.

        Raises:
            UserError: the tensors are of another network.
        """
        copied = copy.deepcopy(network)
        if isinstance(copied, DetectionNetwork):
            copied.set_tensors(self.tensors)
        else:
            set_tensors_(copied, self.tensors)
        return copied

    def half(self) -> Checkpoint:
        """The same with floating-point tensors in fp16: half the file; loading widens them again.

        A tensor with a value beyond the range of fp16 (65,504), such as the variance of a norm of a hardly trained
        network, stays as it is.
        """
        return replace(self, tensors={name: _halved(tensor) for name, tensor in self.tensors.items()})

    def __repr__(self) -> str:
        classes = list(self.names.values())
        some = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
        values = sum(tensor.numel() for tensor in self.tensors.values())
        lines = [
            f"Checkpoint of a {self.architecture}" + (f", {self.nc} classes ({some})" if classes else ""),
            f"  {values:,} values in {len(self.tensors)} tensors"
            + (f", of which {len(self.masks)} have masks" if self.masks else "")
            + (f", strides {', '.join(f'{stride:g}' for stride in self.strides)}" if self.strides else "")
            + (f", for images of {self.image_size} px" if self.image_size else ""),
        ]
        if self.history:
            verbs = [stage.verb for stage in self.history]
            earlier = f"{len(verbs) - 8} stages, " if len(verbs) > 8 else ""
            lines.append(f"  history: {earlier}{', '.join(verbs[-8:])}")
        return "\n".join(lines)

    def _built(self, architecture: Architecture, names: Mapping[int, str], tensors: Mapping[str, Tensor]) -> Detector:
        if isinstance(architecture, PlainModule):
            plain = architecture.build(names)
            set_tensors_(plain, tensors)
            return cast(Detector, plain.cpu().eval())
        # Built without memory or random numbers: every tensor is replaced right away.
        with torch.device("meta"):
            network = cast(Detector, architecture.build(names))
        network.set_tensors(tensors)
        if any(buffer.is_meta for buffer in network.buffers()):
            # It has tensors that are not in its state, which only a network built for good has.
            with torch.random.fork_rng(devices=[]):
                network = cast(Detector, architecture.build(names))
            network.set_tensors(tensors)
        if tuple(network.strides) != self.strides:
            network.strides = self.strides
        return network.eval()


def _own(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def load_checkpoint(path_or_name: str | Path, cfg: str | Path = "", *, sound: bool = True) -> Checkpoint:
    """Reads a Secateur `.safetensors` or a YOLOv5 `.pt`; official names that are not here are fetched.

    Args:
        path_or_name: the file.
        cfg: model YAML or name of the family, for a file that holds a state dict and no network; others know theirs.
        sound: refuse one whose weights hold NaN, infinite values or negative variances, of which nothing can be made;
            without it such a file is read too, to be looked at.

    Raises:
        UserError: one sentence that says what the file is and what is expected.
    """
    checkpoint = _read(_locate(path_or_name), cfg)
    flaw = flaw_of(checkpoint.tensors) if sound else ""
    if flaw:
        raise UserError(
            f"The weights of {path_or_name} hold {told(flaw)}; nothing can be computed with them: take another "
            "checkpoint, such as an earlier one of the same training."
        )
    return checkpoint


def _read(path: Path, cfg: str | Path) -> Checkpoint:
    """The checkpoint in a file."""
    if not is_container(path):
        if cfg and (state := read_state(path)) is not None:
            return Checkpoint.of(network_of(path, state, cfg))
        stock = read_stock(path)
        tensors = {k: _own(v) for k, v in stock.tensors.items()}
        return Checkpoint(
            YOLOv5(stock.topology),
            tensors,
            stock.names,
            stock.strides,
            training=stock.training,
            image_size=stock.image_size,
        )
    contents = read_container(path)
    return Checkpoint(tensors=contents.tensors, masks=contents.masks, **_fields(path, contents.data))


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Writes a `.safetensors` file atomically: after a failure the old file, or none, is there.

    Raises:
        UserError: the suffix is another one, the folder cannot be written or the disk is full.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"Cannot save a checkpoint as {path}; its name must end in .safetensors.")
    data = {
        "architecture": checkpoint.architecture.kind,
        "topology": checkpoint.architecture.to_dict(),
        "names": {str(k): v for k, v in checkpoint.names.items()},
        "strides": list(checkpoint.strides),
        "training": checkpoint.training,
        "plan": checkpoint.plan,
        "history": [asdict(stage) for stage in checkpoint.history],
        "image_size": checkpoint.image_size,
    }
    tensors = {k: _own(v) for k, v in checkpoint.tensors.items()}
    write_container(Contents(tensors, checkpoint.masks, data), path)


def _locate(path_or_name: str | Path) -> Path:
    """The file, fetched if it is an official one that is not here."""
    path = usable_path(path_or_name)
    if path.is_dir():
        raise UserError(f"{path} is a folder; {EXPECTED}.")
    if not path.exists():
        if not is_official(path.name):
            raise UserError(f"There is no file {path}; {EXPECTED}.")
        fetch(path)
    return path


def _fields(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that metadata holds."""
    # Files of the first version name no architecture: there was one.
    kind = str(data.get("architecture", YOLOv5.kind))
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{path} holds a network of the architecture {shown(kind)}, which is not known here; name the file that "
            f"registers it in the environment variable {PLUGINS}."
        )
    try:
        history = tuple(_stage(stage) for stage in data["history"])
        sizes = [stage.settings.get("image_size") for stage in history]
        known = [data["image_size"]] if "image_size" in data else [size for size in sizes if isinstance(size, int)]
        fields: dict[str, Any] = {
            "architecture": ARCHITECTURES[kind].from_dict(data["topology"]),
            "names": {int(k): str(v) for k, v in data["names"].items()},
            "strides": tuple(float(s) for s in data["strides"]),
            "training": dict(data["training"]),
            "plan": None if data["plan"] is None else dict(data["plan"]),
            "history": history,
            "image_size": int(known[-1]) if known and known[-1] is not None else None,
        }
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError, UserError) as error:
        raise UserError(f"{path} has broken metadata ({told(error, 100)}); {EXPECTED}.") from error
    _check_fields(path, fields)
    return fields


def _stage(data: Mapping[str, Any]) -> Stage:
    """A stage of the history, whose parts are dicts."""
    stage = Stage(**data)
    if not isinstance(stage.verb, str) or not all(
        isinstance(part, dict) for part in (stage.settings, stage.metrics, stage.cost)
    ):
        raise ValueError("a stage of its history is none")
    return stage


def _check_fields(path: Path, fields: Mapping[str, Any]) -> None:
    """Refuses metadata whose parts do not belong together, or that no detector has."""
    architecture, strides, names = fields["architecture"], fields["strides"], fields["names"]
    known = isinstance(architecture, YOLOv5)
    levels = len(architecture.topology.anchors) if known else len(strides)
    if len(strides) != levels or not all(math.isfinite(s) and s > 0 for s in strides):
        raise UserError(f"{path} has broken strides; {EXPECTED}.")
    if len(names) > MAX_CLASSES or (known and set(names) != set(range(architecture.nc))):
        raise UserError(f"{path} has {len(names):,} names for {architecture.nc:,} classes; {EXPECTED}.")
    if fields["image_size"] is not None and not 0 < fields["image_size"] <= MAX_ARGUMENT:
        raise UserError(f"{path} is for images of {shown(fields['image_size'])} px; {EXPECTED}.")


def _halved(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.equal(torch.isfinite(half), torch.isfinite(tensor)) else tensor
