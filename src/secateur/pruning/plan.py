"""Plans: which channels and blocks to keep. A plan can be printed, saved and compared before cutting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from secateur.errors import UserError, told
from secateur.limits import MAX_CHANNELS
from secateur.pruning.budget import Budget
from secateur.pruning.graph import Bools, ChannelGraph, ImageSize, Price
from secateur.pruning.removal import Removal


@dataclass(frozen=True)
class LayerPlan:
    """Channels that a layer keeps: sorted indices into its `total` original channels."""

    name: str
    kept: tuple[int, ...]
    total: int


@dataclass(frozen=True, repr=False)
class Plan:
    """The kept channels of every prunable layer, the reason, and the cost before and after.

    `image_size` applies to both costs, in pixels: one side, or height and width; None for a network that was not traced
    with one image.

    A plan with a `removal` first removes blocks from their chains. Names and channel numbers always refer to the
    network with all blocks; layers of removed blocks keep no channels.
    """

    layers: tuple[LayerPlan, ...]
    units: int
    units_kept: int
    before: Price
    after: Price
    image_size: ImageSize = None
    budget: Budget | None = None
    criterion: str = ""
    notes: tuple[str, ...] = ()
    removal: Removal = field(default_factory=Removal)

    @property
    def removed_blocks(self) -> tuple[str, ...]:
        """Names of the blocks to remove."""
        return self.removal.blocks

    @staticmethod
    def of(
        graph: ChannelGraph,
        keep: Bools,
        image_size: ImageSize = None,
        *,
        budget: Budget | None = None,
        criterion: str = "",
        notes: Iterable[str] = (),
    ) -> Plan:
        """The plan that keeps the units marked in `keep`, bool [units]; `image_size` None: the traced size."""
        extended = np.append(np.asarray(keep, dtype=bool), True)
        layers = tuple(
            LayerPlan(name, tuple(np.flatnonzero(extended[units]).tolist()), len(units))
            for name, units in graph.emitted.items()
            if (units >= 0).any()
        )
        before, after = graph.price(None, image_size), graph.price(extended[:-1], image_size)
        kept, size = int(extended[:-1].sum()), _size(graph, image_size)
        return Plan(layers, graph.units, kept, before, after, size, budget, criterion, tuple(notes))

    @staticmethod
    def everything(graph: ChannelGraph, image_size: ImageSize = None) -> Plan:
        """The empty plan, which keeps everything."""
        return Plan.of(graph, graph.everything(), image_size)

    @staticmethod
    def of_removal(
        graph: ChannelGraph, smaller: ChannelGraph, removal: Removal, image_size: ImageSize = None, **reasons: Any
    ) -> Plan:
        """The plan that removes blocks and keeps all other channels.

        Args:
            graph: graph of the network with all blocks.
            smaller: graph of the network without them.
            reasons: `criterion` and `notes` of the plan.
        """
        layers = tuple(
            LayerPlan(name, tuple(range(len(units))) if removal.renamed(name) else (), len(units))
            for name, units in graph.emitted.items()
            if (units >= 0).any()
        )
        before, after = graph.price(None, image_size), smaller.price(None, image_size)
        size = _size(graph, image_size)
        return Plan(layers, graph.units, smaller.units, before, after, size, removal=removal, **reasons)

    @property
    def removed_share(self) -> float:
        """Share of the prunable units that are removed."""
        return 1 - self.units_kept / max(self.units, 1)

    def keep(self, graph: ChannelGraph) -> Bools:
        """Which units are kept: bool [units]. `graph` must be the graph of the network without the removed blocks.

        Raises:
            UserError: the plan was made for another network, or the network still has the blocks.
        """
        mask = np.ones(graph.units, dtype=bool)
        prunable = {name for name, units in graph.emitted.items() if (units >= 0).any()}
        renamed = [(self.removal.renamed(layer.name), layer) for layer in self.layers]
        layers = [LayerPlan(name, layer.kept, layer.total) for name, layer in renamed if name is not None]
        if self.removed_blocks and prunable == {layer.name for layer in self.layers}:
            raise UserError(
                f"The plan also removes blocks ({', '.join(self.removed_blocks)}). Remove them before cutting channels."
            )
        if prunable != {layer.name for layer in layers}:
            raise UserError("The plan was made for another network: the layer names differ.")
        removed = []
        for layer in layers:
            units = graph.emitted[layer.name]
            if len(units) != layer.total or (layer.kept and layer.kept[-1] >= layer.total):
                raise UserError(f"The plan expects {layer.total} channels in {layer.name}, which has {len(units)}.")
            gone = np.ones(layer.total, dtype=bool)
            gone[list(layer.kept)] = False
            removed.append(gone)
            if (units[gone] < 0).any():
                raise UserError(f"The plan removes channels of {layer.name} that are not prunable.")
            mask[units[gone]] = False
        for layer, gone in zip(layers, removed, strict=True):
            if (np.append(mask, True)[graph.emitted[layer.name]] == gone).any():
                raise UserError(f"The plan removes channels of {layer.name}, but not the channels tied to them.")
        return mask

    def then(self, later: Plan) -> Plan:
        """This plan followed by a later plan, for the network that this plan leaves, as one plan for the first network.

        The budget is kept only if one of the two has one, because shares of different networks cannot be combined. The
        combined plan gives the same network as both plans in sequence. The only exception is a block without a shortcut
        that is removed after a cut (`any_layer`): channels can then be paired differently.

        Raises:
            UserError: the later plan is for a different network than the one that this plan leaves.
        """
        changes = {self.removal.original(layer.name): layer for layer in later.layers}
        layers = []
        for layer in self.layers:
            change = changes.pop(layer.name, None) if self.removal.renamed(layer.name) else None
            if change is not None and change.total != len(layer.kept):
                raise UserError(
                    f"The plans cannot be combined: the first one leaves {len(layer.kept)} channels in "
                    f"{layer.name}, but the second one expects {change.total}."
                )
            kept = layer.kept if change is None else tuple(layer.kept[i] for i in change.kept)
            layers.append(LayerPlan(layer.name, kept, layer.total))
        # Layers that became prunable only after others were removed.
        layers += [LayerPlan(name, layer.kept, layer.total) for name, layer in changes.items()]
        # The cost of convolutions is proportional to the area, so the cost at another image size follows exactly.
        area = _area(later.image_size) / _area(self.image_size)
        return Plan(
            layers=tuple(layers),
            units=self.units,
            units_kept=later.units_kept,
            before=Price(self.before.parameters, round(self.before.flops * area)),
            after=later.after,
            image_size=later.image_size,
            budget=None if self.budget and later.budget else self.budget or later.budget,
            criterion=" + ".join(dict.fromkeys(filter(None, (self.criterion, later.criterion)))),
            notes=(*self.notes, *later.notes),
            removal=self.removal.then(later.removal),
        )

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold; kept channels are written as ranges ("0-5,7")."""
        data = asdict(self)
        del data["removal"]
        data |= self.removal.to_dict()
        data["layers"] = {layer.name: {"kept": _ranges(layer.kept), "total": layer.total} for layer in self.layers}
        data["notes"] = list(self.notes)
        data["budget"] = self.budget.to_dict() if self.budget else None
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Plan:
        """Reads the output of `to_dict`.

        Raises:
            UserError: a field is missing or invalid.
        """
        try:
            totals = {name: int(entry["total"]) for name, entry in data["layers"].items()}
            if not all(total >= 1 for total in totals.values()) or sum(totals.values()) > MAX_CHANNELS:
                raise ValueError(f"its layers have {sum(totals.values())} channels")
            layers = tuple(
                LayerPlan(name, _indices(data["layers"][name]["kept"], total), total) for name, total in totals.items()
            )
            return Plan(
                layers=layers,
                units=int(data["units"]),
                units_kept=int(data["units_kept"]),
                before=_read_price(data["before"]),
                after=_read_price(data["after"]),
                image_size=_read_size(data["image_size"]),
                budget=Budget.from_dict(data["budget"]) if data["budget"] else None,
                criterion=str(data["criterion"]),
                notes=tuple(map(str, data["notes"])),
                removal=Removal.from_dict(data),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"This is not a valid pruning plan ({type(error).__name__}: {told(error)}).") from error

    def table(self) -> str:
        """The plan as text: kept and total channels of each layer, then the totals."""
        width = max([len(layer.name) for layer in self.layers], default=5)
        lines = [f"{'layer':<{width}}  {'kept':>6} / {'total':<6}  share"]
        for layer in self.layers:
            share = len(layer.kept) / layer.total
            lines.append(f"{layer.name:<{width}}  {len(layer.kept):>6} / {layer.total:<6}  {share:5.0%}")
        lines.append(f"{'units':<{width}}  {self.units_kept:>6} / {self.units:<6}  {1 - self.removed_share:5.0%}")
        return "\n".join([*lines, *self._costs(), *self._remarks()])

    def __str__(self) -> str:
        """A short summary: what is removed, the savings, and notes; `table` shows every layer."""
        cut = sum(0 < len(layer.kept) < layer.total for layer in self.layers)
        why = [f"budget {self.budget}"] * bool(self.budget) + [f"by {self.criterion}"] * bool(self.criterion)
        what = f"{self.units_kept} of {self.units} units are kept; {cut} of {len(self.layers)} layers become narrower"
        first = f"{what} ({', '.join(why)})" if why else what
        return "\n".join([first, *self._costs(), *self._remarks()])

    __repr__ = __str__

    def _costs(self) -> list[str]:
        """Parameters and FLOPs before and after, one line each."""
        size = "x".join(map(str, self.image_size)) if isinstance(self.image_size, tuple) else self.image_size
        flops = f"FLOPs at {size} px" if size else "FLOPs"
        rows = (
            ("parameters", self.before.parameters, self.after.parameters),
            (flops, self.before.flops, self.after.flops),
        )
        return [f"{name}: {old:,} -> {new:,} ({new / max(old, 1):.1%})" for name, old, new in rows]

    def _remarks(self) -> list[str]:
        removed = [f"removed blocks: {', '.join(self.removed_blocks)}"] if self.removed_blocks else []
        return [*removed, *self.notes]


def _size(graph: ChannelGraph, image_size: ImageSize) -> ImageSize:
    """The image size of a cost; None becomes the traced size."""
    if image_size is not None or graph.image_size is None:
        return image_size
    height, width = graph.image_size
    return height if height == width else graph.image_size


def _area(image_size: ImageSize) -> int:
    """Area in pixels; 1 if there is no image size."""
    height, width = image_size if isinstance(image_size, tuple) else (image_size or 1, image_size or 1)
    return height * width


def _read_size(value: Any) -> ImageSize:
    """An image size from JSON."""
    if isinstance(value, (tuple, list)):
        height, width = value
        return int(height), int(width)
    return None if value is None else int(value)


def _ranges(indices: tuple[int, ...]) -> str:
    array = np.array(indices, dtype=np.int64)
    runs = np.split(array, np.flatnonzero(np.diff(array) != 1) + 1) if len(array) else []
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _indices(text: str, total: int) -> tuple[int, ...]:
    indices: list[int] = []
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        if not 0 <= int(first) <= int(last or first) < total or (indices and int(first) <= indices[-1]):
            raise ValueError(f"there are no channels {told(run, 30)} of {total}")
        indices.extend(range(int(first), int(last or first) + 1))
    return tuple(indices)


def _read_price(data: dict[str, Any]) -> Price:
    return Price(int(data["parameters"]), int(data["flops"]))
