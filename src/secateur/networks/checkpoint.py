"""Checkpoints: everything about one network in one file, read and written without executing anything.

Ours is one `.safetensors` file: tensors and masks, and in its metadata under the key "secateur" JSON with all the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.networks.architecture import Architecture, DescribedNetwork, is_described, names_of, outline, strides_of
from secateur.networks.classes import knows_classes
from secateur.networks.formats.container import Contents, write_container
from secateur.networks.fresh_head import head_tensors, start_afresh_, with_room_for
from secateur.networks.plain_module import PlainModule
from secateur.networks.tensors import set_tensors_

NARROWED = "classes"
"""Verb of the history entry of a network whose outputs for other classes were removed."""


@dataclass(frozen=True)
class HistoryEntry:
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
        names: class id -> name; empty where the network has no names.
        strides: pixels a cell of each level; () where the network has no strides.
        masks: tensor name -> mask of the same shape, for weights that are to stay zero.
        training: training arguments and state, JSON data.
        plan: what was cut, as the pruning package writes it.
        history: entries from the first to the last.
        image_size: px of the images that it was trained or pruned for; None where nobody said.
    """

    architecture: Architecture
    tensors: dict[str, Tensor]
    names: dict[int, str]
    strides: tuple[float, ...]
    masks: dict[str, Tensor] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    history: tuple[HistoryEntry, ...] = ()
    image_size: int | None = None

    @staticmethod
    def of(network: nn.Module, *, like: Checkpoint | None = None, **changes: Any) -> Checkpoint:
        """A checkpoint with copies of the network's tensors on the CPU.

        Args:
            network: a `DescribedNetwork`, or any other network; the latter can be built again from this checkpoint, but
                not from a file of it (see `into`).
            like: masks, training, plan, history and image size are taken from here.
            changes: fields that are set instead, by their names.

        Raises:
            UserError: the network says what it is built from, but is no `DescribedNetwork`.
        """
        tensors = {k: _own(v) for k, v in network.state_dict().items()}
        if is_described(network):
            architecture = cast(DescribedNetwork, network).architecture
            base = Checkpoint(architecture, tensors, names_of(network), strides_of(network))
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
        entries = [entry.settings for entry in self.history if "single_cls" in entry.settings]
        notes = self.training.get("settings", self.training)
        last = entries[-1] if entries else notes if isinstance(notes, Mapping) else {}
        return self.nc == 1 and last.get("single_cls") is True

    @property
    def narrowed(self) -> bool:
        """Whether it has some of the classes that it was trained on and gives no answers for the others (--classes)."""
        kept = [entry.settings.get("classes") for entry in self.history if entry.verb == NARROWED]
        names = kept[-1] if kept and isinstance(kept[-1], list) else []
        return bool(names) and knows_classes(self.names, dict(enumerate(map(str, names))))

    def build(self) -> nn.Module:
        """The network, fp32, on the CPU, in eval mode, every layer as wide as its tensors are.

        Raises:
            UserError: architecture and tensors do not belong together, or no file can build the network.
        """
        return self._built(self.architecture, self.names, self.tensors)

    def build_for(self, names: Mapping[int, str]) -> nn.Module:
        """The network for these classes, to be trained on: a head that does not know them starts afresh.

        The widths of a cut network and every other tensor stay.

        Raises:
            UserError: as `build`, or a tensor of the head cannot start afresh.
        """
        if knows_classes(self.names, names):
            return self._built(self.architecture, names, self.tensors)
        architecture = self.architecture.with_classes(len(names))
        head = head_tensors(architecture)
        network = self._built(architecture, names, with_room_for(head, self.tensors))
        start_afresh_(network, head)
        return network

    def into(self, network: nn.Module) -> nn.Module:
        """A copy of a network with these tensors, every layer as wide as its tensors are; mode and device stay.

        The way back for networks that no file can build: give the network as it was before it was cut.

        Raises:
            UserError: the tensors are of another network.
        """
        copied = copy.deepcopy(network)
        _set(copied, self.tensors)
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
            verbs = [entry.verb for entry in self.history]
            earlier = f"{len(verbs) - 8} entries, " if len(verbs) > 8 else ""
            lines.append(f"  history: {earlier}{', '.join(verbs[-8:])}")
        return "\n".join(lines)

    def _built(self, architecture: Architecture, names: Mapping[int, str], tensors: Mapping[str, Tensor]) -> nn.Module:
        if isinstance(architecture, PlainModule):
            plain = architecture.build(names)
            set_tensors_(plain, tensors)
            return plain.cpu().eval()
        # Built without memory or random numbers: every tensor is replaced right away.
        network = outline(architecture, names)
        _set(network, tensors)
        if any(buffer.is_meta for buffer in network.buffers()):
            # It has tensors that are not in its state, which only a network built for good has.
            with torch.random.fork_rng(devices=[]):
                network = architecture.build(names)
            _set(network, tensors)
        if self.strides and hasattr(network, "strides") and strides_of(network) != self.strides:
            setattr(network, "strides", self.strides)  # noqa: B010 (read-only for those who look at a network)
        return network.eval()


def _set(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Tensors into a network, in the way of its own where it has one."""
    if isinstance(network, DescribedNetwork):
        network.set_tensors(tensors)
    else:
        set_tensors_(network, tensors)


def _own(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()


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
        "history": [asdict(entry) for entry in checkpoint.history],
        "image_size": checkpoint.image_size,
    }
    tensors = {k: _own(v) for k, v in checkpoint.tensors.items()}
    write_container(Contents(tensors, checkpoint.masks, data), path)


def _halved(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.equal(torch.isfinite(half), torch.isfinite(tensor)) else tensor
