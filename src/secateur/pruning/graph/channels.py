"""The channel graph as data: units, spaces, the tensors that they index, and the channels that cannot go."""

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
    """Units that are emitted by exactly the same layers, with as many channels of each.

    Attributes:
        layers: names of the convolutions and linear layers that emit them.
        units: numbers of the units, [units].
        widths: channels of each layer that one unit stands for (more than 1 in grouped convolutions).
        frozen: channels of each layer that belong to no unit and are counted here; a layer of several spaces counts
            them in the first.
    """

    layers: tuple[str, ...]
    units: Ids
    widths: tuple[int, ...]
    frozen: tuple[int, ...]

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Whether a pattern names one of its layers or a module around it ("model.24", "model.*.cv1.conv")."""
        names = {".".join(parts[: n + 1]) for parts in (x.split(".") for x in self.layers) for n in range(len(parts))}
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@dataclass(frozen=True)
class Frozen:
    """Channels of one layer that cannot go.

    Attributes:
        layer: name of the convolution or linear layer that emits them.
        channels: how many cannot go.
        total: how many it emits.
        by: the operator or output that froze them, in words ("softmax in Attention").
        place: name of the module that calls the operator; empty for the network itself.
    """

    layer: str
    channels: int
    total: int
    by: str
    place: str = ""


@dataclass(frozen=True)
class FrozenChannels:
    """All channels that cannot go, in the order of the network; its text is one line for each cause."""

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
        """Why a network has no channel that can go."""
        causes = [f"{by}{_places(entries)}" for by, entries in self._by_cause().items()]
        if not causes:
            return "This network has no channels that can be pruned: none of its layers could be followed."
        channels, layers = sum(entry.channels for entry in self), len({entry.layer for entry in self})
        return (
            f"This network has no channels that can be pruned: all {channels} channels of its {layers} layers "
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
    """Up to three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@dataclass(frozen=True)
class Tables:
    """What was measured for costs that cannot be counted; each None where no budget reads it.

    Attributes:
        timing: milliseconds of layers.
        sizing: bytes of exported files.
    """

    timing: LatencyTable | None = None
    sizing: SizeTable | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ChannelGraph:
    """Units, spaces, and for every tensor axis the unit of each entry. Made by `trace`; holds no weights.

    Detectors of one structure share a graph: nobody changes one.

    Attributes:
        units: how many there are; each lives or dies as one.
        spaces: the units by the layers that emit them.
        axes: for each dimension of a parameter or buffer that shrinks, the unit of each of its entries.
        filters: for each convolution and linear layer the axis of its weight that is indexed by the channels that it
            emits.
        emitted: for each of them the unit of each channel that it emits (-1: none).
        norms: for each batch norm the unit of each of its channels.
        layer_norms: for each layer norm over channels the unit of each of them.
        norm_after: the batch norm that alone reads a convolution or linear layer.
        numbers: integers that modules keep and their code reads, with the units that they count.
        frozen: which channels cannot go, and what froze them.
        inputs: the example inputs, on the meta device: shapes without values.
        image_size: height and width of the image that was traced; None for a network with other inputs.
        pricing: what any choice of units costs.
        operations: the operations, as a latency table sees them.
        timing: the latency table that budgets in milliseconds read; `dataclasses.replace` attaches one.
        sizing: the bytes of exported files that budgets of their size read; attached likewise.
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
        """Exact cost of the network that keeps these units (None: all), without building it.

        Args:
            keep: [units] bool.
            image_size: pixels of the image, for networks that take one; None: what the network was traced with.

        Raises:
            UserError: the image size is not a multiple of the network's largest stride, or the network takes no image.
        """
        mask = self.everything() if keep is None else np.asarray(keep, dtype=bool)
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        return self.pricing.price(mask, None if sides == self.image_size else sides)

    def with_tables(self, tables: Tables) -> ChannelGraph:
        """The same graph with these tables."""
        return replace(self, timing=tables.timing, sizing=tables.sizing)

    @property
    def tables(self) -> Tables:
        """The tables that it carries."""
        return Tables(self.timing, self.sizing)

    def everything(self) -> Bools:
        """The choice that keeps all units, [units] bool."""
        return np.ones(self.units, dtype=bool)

    def __str__(self) -> str:
        """A few lines: units, cost, what is frozen."""
        if self.units == 0:
            return self.frozen.sentence
        price = self.price()
        size = "its example inputs" if self.image_size is None else "x".join(map(str, self.image_size)) + " px"
        channels = sum(len(units) for units in self.emitted.values())
        prunable = sum(int((units >= 0).sum()) for units in self.emitted.values())
        lines = [
            f"{self.units} units in {len(self.spaces)} spaces: {prunable} of {channels} channels of "
            f"{len(self.emitted)} layers can go",
            f"{price.parameters:,} parameters, {price.flops:,} FLOPs at {size}",
        ]
        causes = str(self.frozen).splitlines()
        return "\n".join([*lines, *causes[:5], *([f"... {len(causes) - 5} more causes"] if len(causes) > 5 else [])])

    __repr__ = __str__

    @cached_property
    def space_of(self) -> Ids:
        """Index of the space of each unit."""
        index = np.empty(self.units, dtype=np.int64)
        for number, space in enumerate(self.spaces):
            index[space.units] = number
        return index

    @cached_property
    def consumers(self) -> tuple[Axis, ...]:
        """Axes along which ungrouped convolutions and linear layers read units: one a layer."""
        return tuple(
            axis
            for axis in self.axes
            if axis.layer in self.filters
            and axis.tensor.endswith("weight")
            and axis.dim != self.filters[axis.layer].dim
        )
