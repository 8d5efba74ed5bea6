"""Checkpoints: a network with all its data in one file, read and written without executing anything.

The file is a `.safetensors` file with tensors and masks; all other data are JSON in its metadata under the key
"secateur".
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
    """One step in the history of a network: the verb, its settings, results, and the cost afterwards."""

    verb: str
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A network with all its data, as tensors and plain data.

    Attributes:
        architecture: what the network is built from, with the widths before any cut.
        tensors: state dict; the shapes are the actual widths.
        names: class id -> name; empty without names.
        strides: pixels per cell of each level; () without strides.
        masks: tensor name -> bool mask of the same shape, for weights that must stay zero.
        training: training arguments and state, data that JSON can hold.
        plan: what was cut, as written by the pruning package.
        history: entries from the first to the last.
        image_size: image size in pixels for which it was trained or pruned; None if unknown.
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
        """A checkpoint with copies of the tensors of the network on the CPU.

        Args:
            network: a `DescribedNetwork`, or any other network; the latter can be rebuilt from this checkpoint, but not
                from a file of it (see `into`).
            like: checkpoint whose masks, training, plan, history and image size are used.
            changes: other values for fields, by name.

        Raises:
            UserError: the network has an architecture, but is not a `DescribedNetwork`.
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
        """Whether it has a single class that replaces all classes of the data set it was trained on (--single-cls)."""
        entries = [entry.settings for entry in self.history if "single_cls" in entry.settings]
        notes = self.training.get("settings", self.training)
        last = entries[-1] if entries else notes if isinstance(notes, Mapping) else {}
        return self.nc == 1 and last.get("single_cls") is True

    @property
    def narrowed(self) -> bool:
        """Whether it was reduced to some of the classes that it was trained on (--classes)."""
        kept = [entry.settings.get("classes") for entry in self.history if entry.verb == NARROWED]
        names = kept[-1] if kept and isinstance(kept[-1], list) else []
        return bool(names) and knows_classes(self.names, dict(enumerate(map(str, names))))

    def build(self) -> nn.Module:
        """The network, fp32, on the CPU, in eval mode, with the widths of its tensors.

        Raises:
            UserError: architecture and tensors do not match, or the network cannot be built from a file.
        """
        return self._built(self.architecture, self.names, self.tensors)

    def build_for(self, names: Mapping[int, str]) -> nn.Module:
        """The network for training on these classes; the head is initialised again if it has other classes.

        The widths of a cut network and all other tensors are kept.

        Raises:
            UserError: see `build`; or a tensor of the head cannot be initialised.
        """
        if knows_classes(self.names, names):
            return self._built(self.architecture, names, self.tensors)
        architecture = self.architecture.with_classes(len(names))
        head = head_tensors(architecture)
        network = self._built(architecture, names, with_room_for(head, self.tensors))
        start_afresh_(network, head)
        return network

    def into(self, network: nn.Module) -> nn.Module:
        """A copy of a network with these tensors and their widths; mode and device are those of the network.

        For networks that cannot be built from a file: pass the network before the cut.

        Raises:
            UserError: the tensors belong to another network.
        """
        copied = copy.deepcopy(network)
        _set(copied, self.tensors)
        return copied

    def half(self) -> Checkpoint:
        """The checkpoint with floating-point tensors in fp16, which halves the file; loading converts them back.

        A tensor with a value beyond the range of fp16 (65,504), such as the variance of a norm of a barely trained
        network, is not converted.
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
        # Built without memory and random numbers, because every tensor is replaced immediately.
        network = outline(architecture, names)
        _set(network, tensors)
        if any(buffer.is_meta for buffer in network.buffers()):
            # It has tensors outside its state dict, which exist only in a network that is really built.
            with torch.random.fork_rng(devices=[]):
                network = architecture.build(names)
            _set(network, tensors)
        if self.strides and hasattr(network, "strides") and strides_of(network) != self.strides:
            setattr(network, "strides", self.strides)  # noqa: B010 (read-only for those who look at a network)
        return network.eval()


def _set(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Sets the tensors of a network, with its own method if it has one."""
    if isinstance(network, DescribedNetwork):
        network.set_tensors(tensors)
    else:
        set_tensors_(network, tensors)


def _own(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares no memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Writes a `.safetensors` file atomically: after a failure, the previous state is unchanged.

    Raises:
        UserError: the suffix is different, the folder is not writable, or the disk is full.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"Cannot save a checkpoint as {path}. The name must end in .safetensors.")
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
