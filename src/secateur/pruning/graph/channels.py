"""The channel graph as data: units, spaces, the tensors that they index, and the frozen channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from secateur.pruning.graph.flow import Ids, Number
from secateur.pruning.graph.pricing import Axis, Bools, ImageSize, Price, Pricing, Sides
from secateur.pruning.graph.size_table import SizeTable
from secateur.pruning.latency import LatencyTable, TracedOperation


@dataclass(frozen=True, eq=False)
class Space:
    """Units that are emitted by the same layers, with the same number of channels in each of them.

    Attributes:
        layers: names of the convolutions and linear layers that emit them.
        units: numbers of the units, int64 [units of the space].
        widths: channels per unit in each layer (more than 1 in grouped convolutions).
        frozen: channels of each layer that belong to no unit; a layer with several spaces counts them in the first
            space.
    """

    layers: tuple[str, ...]
    units: Ids
    widths: tuple[int, ...]
    frozen: tuple[int, ...]

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Whether a pattern matches one of its layers or a module that contains it ("model.24", "model.*.cv1.conv")."""
        names = {".".join(parts[: n + 1]) for parts in (x.split(".") for x in self.layers) for n in range(len(parts))}
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@dataclass(frozen=True)
class Frozen:
    """Channels of one layer that cannot be removed.

    Attributes:
        layer: name of the convolution or linear layer that emits them.
        channels: number of frozen channels.
        total: number of channels of the layer.
        by: operator or output that froze them, as text ("softmax in Attention").
        place: name of the module that calls the operator; empty for the network itself.
    """

    layer: str
    channels: int
    total: int
    by: str
    place: str = ""


@dataclass(frozen=True)
class FrozenChannels:
    """All frozen channels in network order; as text, one line per cause."""

    entries: tuple[Frozen, ...] = ()

    def __iter__(self) -> Iterator[Frozen]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        lines = []
        for by, entries in self._by_cause().items():
            layers = [f"{entry.layer} ({entry.channels} of {entry.total})" for entry in entries]
            lines.append(f"frozen by {by}{_places(entries)}: {_some(layers)}")
        return "\n".join(lines) or "no channel is frozen"

    @property
    def sentence(self) -> str:
        """Explains why a network has no prunable channel."""
        causes = [f"{by}{_places(entries)}" for by, entries in self._by_cause().items()]
        if not causes:
            return "This network has no prunable channels: none of its layers could be traced."
        channels, layers = sum(entry.channels for entry in self), len({entry.layer for entry in self})
        return (
            f"This network has no prunable channels: all {channels} channels of its {layers} layers "
            f"are frozen by {_some(causes)}."
        )

    def _by_cause(self) -> dict[str, list[Frozen]]:
        groups: dict[str, list[Frozen]] = {}
        for entry in self:
            groups.setdefault(entry.by, []).append(entry)
        return groups


def _places(entries: Iterable[Frozen]) -> str:
    places = [place for place in dict.fromkeys(entry.place for entry in entries) if place]
    return f" at {_some(places)}" if places else ""


def _some(names: Sequence[str]) -> str:
    """Up to three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@dataclass(frozen=True)
class Tables:
    """Measured tables for costs that cannot be counted; None if no budget needs it.

    Attributes:
        timing: milliseconds of layers.
        sizing: bytes of exported files.
    """

    timing: LatencyTable | None = None
    sizing: SizeTable | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ChannelGraph:
    """Units, spaces, and the unit of each entry along every prunable tensor axis. Created by `trace`; holds no weights.

    Networks of the same structure share a graph, so treat it as immutable.

    Attributes:
        units: number of units; a unit is kept or removed as a whole.
        spaces: the units, grouped by the layers that emit them.
        axes: for each prunable dimension of a parameter or buffer, the unit of each entry.
        filters: for each convolution and linear layer, the weight axis of its output channels.
        emitted: for each of these layers, the unit of each output channel (-1: none).
        norms: for each batch norm, the unit of each channel.
        layer_norms: for each layer norm over channels, the unit of each channel.
        norm_after: for a convolution or linear layer, the batch norm that is its only reader.
        numbers: integers stored in modules and read by their code, with the units that they count.
        frozen: channels that cannot be removed, and the causes.
        inputs: the example inputs on the meta device: shapes without values.
        image_size: height and width of the traced image; None for a network with other inputs.
        pricing: cost of any selection of units.
        operations: the operations that a latency table covers.
        timing: latency table for budgets in milliseconds; attach one with `dataclasses.replace`.
        sizing: size table for budgets on file size; attach one with `dataclasses.replace`.
    """

    units: int
    spaces: tuple[Space, ...]
    axes: tuple[Axis, ...]
    filters: Mapping[str, Axis]
    emitted: Mapping[str, Ids]
    norms: Mapping[str, Ids]
    layer_norms: Mapping[str, Ids]
    norm_after: Mapping[str, str]
    numbers: tuple[Number, ...]
    frozen: FrozenChannels
    inputs: tuple[Any, ...]
    image_size: Sides | None
    pricing: Pricing = field(repr=False)
    operations: tuple[TracedOperation, ...] = field(default=(), repr=False)
    timing: LatencyTable | None = field(default=None, repr=False)
    sizing: SizeTable | None = field(default=None, repr=False)

    def price(self, keep: Bools | Tensor | None = None, image_size: ImageSize = None) -> Price:
        """Exact cost of the network that keeps these units, computed without building it.

        Args:
            keep: bool [units]; None: all units.
            image_size: image size in pixels, for networks that take one image; None: the traced size.

        Raises:
            UserError: the image size is not a multiple of the largest stride of the network, or the network does not
                take an image.
        """
        mask = self.everything() if keep is None else np.asarray(keep, dtype=bool)
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        return self.pricing.price(mask, None if sides == self.image_size else sides)

    def with_tables(self, tables: Tables) -> ChannelGraph:
        """The same graph with these tables."""
        return replace(self, timing=tables.timing, sizing=tables.sizing)

    @property
    def tables(self) -> Tables:
        """The attached tables."""
        return Tables(self.timing, self.sizing)

    def everything(self) -> Bools:
        """The mask that keeps all units: bool [units]."""
        return np.ones(self.units, dtype=bool)

    def __str__(self) -> str:
        """A short summary: units, cost, and frozen channels."""
        if self.units == 0:
            return self.frozen.sentence
        price = self.price()
        size = "its example inputs" if self.image_size is None else "x".join(map(str, self.image_size)) + " px"
        channels = sum(len(units) for units in self.emitted.values())
        prunable = sum(int((units >= 0).sum()) for units in self.emitted.values())
        lines = [
            f"{self.units} units in {len(self.spaces)} spaces: {prunable} of {channels} channels of "
            f"{len(self.emitted)} layers are prunable",
            f"{price.parameters:,} parameters, {price.flops:,} FLOPs at {size}",
        ]
        causes = str(self.frozen).splitlines()
        return "\n".join([*lines, *causes[:5], *([f"... {len(causes) - 5} more causes"] if len(causes) > 5 else [])])

    __repr__ = __str__

    @cached_property
    def space_of(self) -> Ids:
        """Index of the space of each unit: int64 [units]."""
        index = np.empty(self.units, dtype=np.int64)
        for number, space in enumerate(self.spaces):
            index[space.units] = number
        return index

    @cached_property
    def consumers(self) -> tuple[Axis, ...]:
        """Axes along which ungrouped convolutions and linear layers read units, one per layer."""
        return tuple(
            axis
            for axis in self.axes
            if axis.layer in self.filters
            and axis.tensor.endswith("weight")
            and axis.dim != self.filters[axis.layer].dim
        )
