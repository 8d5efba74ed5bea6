"""A plan: which channels and blocks stay; it can be printed, saved and compared before anything is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import numpy as np

from secateur.errors import UserError
from secateur.pruning.graph import Bools, ChannelGraph, Price
from secateur.pruning.operators import Ids
from secateur.pruning.removal import Removal

Kind = Literal["percent", "params", "flops"]
KINDS: tuple[Kind, ...] = ("percent", "params", "flops")
_SUFFIXES = {"%": 0.01, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Budget:
    """How small the network is to become.

    `percent`: share of the prunable units that is removed, in (0, 1). `params`, `flops`: what remains, as a share of
    the dense network in (0, 1) or as a number from 1 up.

    Raises:
        UserError: the amount is outside these ranges.
    """

    kind: Kind
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"Unknown kind of budget {self.kind!r}; choose one of {', '.join(KINDS)}.")
        if self.kind == "percent" and not 0 < self.amount < 1:
            raise UserError(
                f"--percent {self.amount:g} is not between 0 and 1; give the share of units to remove, e.g. 0.3."
            )
        if self.kind != "percent" and not 0 < self.amount < float("inf"):
            raise UserError(
                f"--{self.kind} {self.amount:g} is not positive; give a share of the dense model such as 0.5, "
                "or an absolute number such as 2M."
            )

    @staticmethod
    def parse(kind: str, value: str | float) -> Budget:
        """Reads "0.5", "50%", "2e6", "2M", "3.2G" or a number.

        Raises:
            UserError: the text is not such a number, or outside its range.
        """
        text = str(value).strip().lower()
        factor = _SUFFIXES.get(text[-1:], 1.0)
        try:
            amount = float(text[:-1] if text[-1:] in _SUFFIXES else text) * factor
        except ValueError:
            amount = float("nan")
        if amount != amount:
            raise UserError(f"--{kind} {value} is not a number; write for example 0.5, 50%, 2e6, 2M or 3.2G.")
        return Budget(cast(Kind, kind), amount)

    def __str__(self) -> str:
        amount = f"{self.amount:g}" if self.amount < 1 else f"{self.amount:,.0f}"
        return f"{self.kind} {amount}"


@dataclass(frozen=True)
class LayerPlan:
    """Channels that a layer keeps: sorted indices into its `total` dense ones."""

    name: str
    kept: tuple[int, ...]
    total: int


@dataclass(frozen=True)
class Plan:
    """What stays of every prunable layer, why, and what it costs before and after (at `image_size` pixels).

    A plan with a `removal` first takes blocks out of their chains. Names and channel numbers are always those of the
    network with all blocks; layers of removed blocks keep no channel.
    """

    layers: tuple[LayerPlan, ...]
    units: int
    units_kept: int
    before: Price
    after: Price
    image_size: int = 640
    budget: Budget | None = None
    criterion: str = ""
    notes: tuple[str, ...] = ()
    removal: Removal = field(default_factory=Removal)

    @property
    def removed_blocks(self) -> tuple[str, ...]:
        """Names of the blocks that leave their chains."""
        return self.removal.blocks

    @staticmethod
    def of(
        graph: ChannelGraph,
        keep: Bools,
        image_size: int = 640,
        *,
        budget: Budget | None = None,
        criterion: str = "",
        notes: Iterable[str] = (),
    ) -> Plan:
        """The plan that keeps the units marked True in `keep` [units]."""
        extended = np.append(np.asarray(keep, dtype=bool), True)
        layers = tuple(
            LayerPlan(name, tuple(np.flatnonzero(extended[units]).tolist()), len(units))
            for name, units in graph.emitted.items()
            if (units >= 0).any()
        )
        before, after = graph.price(None, image_size), graph.price(extended[:-1], image_size)
        kept = int(extended[:-1].sum())
        return Plan(layers, graph.units, kept, before, after, image_size, budget, criterion, tuple(notes))

    @staticmethod
    def everything(graph: ChannelGraph, image_size: int = 640) -> Plan:
        """The empty plan: all stays."""
        return Plan.of(graph, np.ones(graph.units, dtype=bool), image_size)

    @staticmethod
    def of_removal(
        graph: ChannelGraph, smaller: ChannelGraph, removal: Removal, image_size: int = 640, **reasons: Any
    ) -> Plan:
        """The plan that takes out blocks and keeps all other channels.

        Args:
            graph: of the network with all blocks.
            smaller: of the network without them.
            reasons: `criterion` and `notes`, as of a plan.
        """
        layers = tuple(
            LayerPlan(name, tuple(range(len(units))) if removal.renamed(name) else (), len(units))
            for name, units in graph.emitted.items()
            if (units >= 0).any()
        )
        before, after = graph.price(None, image_size), smaller.price(None, image_size)
        return Plan(layers, graph.units, smaller.units, before, after, image_size, removal=removal, **reasons)

    @property
    def removed_share(self) -> float:
        """Share of the prunable units that go."""
        return 1 - self.units_kept / max(self.units, 1)

    def keep(self, graph: ChannelGraph) -> Bools:
        """Which units of the graph stay, [units] bool. The graph is that of the network without the removed blocks.

        Raises:
            UserError: the plan was made for another network, or the network still has the blocks.
        """
        mask = np.ones(graph.units, dtype=bool)
        prunable = {name for name, units in graph.emitted.items() if (units >= 0).any()}
        renamed = [(self.removal.renamed(layer.name), layer) for layer in self.layers]
        layers = [LayerPlan(name, layer.kept, layer.total) for name, layer in renamed if name is not None]
        if self.removed_blocks and prunable == {layer.name for layer in self.layers}:
            raise UserError(
                f"The plan also removes blocks ({', '.join(self.removed_blocks)}); they have to go before channels do."
            )
        if prunable != {layer.name for layer in layers}:
            raise UserError("The plan names other layers than the network has; it was made for another network.")
        removed = []
        for layer in layers:
            units = graph.emitted[layer.name]
            if len(units) != layer.total or (layer.kept and layer.kept[-1] >= layer.total):
                raise UserError(f"The plan expects {layer.total} channels in {layer.name}, which has {len(units)}.")
            gone = np.ones(layer.total, dtype=bool)
            gone[list(layer.kept)] = False
            removed.append(gone)
            if (units[gone] < 0).any():
                raise UserError(f"The plan removes channels of {layer.name} that cannot be removed.")
            mask[units[gone]] = False
        for layer, gone in zip(layers, removed, strict=True):
            if (np.append(mask, True)[graph.emitted[layer.name]] == gone).any():
                raise UserError(f"The plan removes channels of {layer.name} without those that are tied to them.")
        return mask

    def then(self, later: Plan) -> Plan:
        """This plan and a later one, made for the network that this one leaves, as one plan for the first network.

        The budget is kept where only one of the two has one: shares of different networks do not add up.
        Carried out at once, the plan gives what both give one after the other; only where a block without a residual
        sum goes after a cut (`any_layer`) can channels be paired otherwise.

        Raises:
            UserError: the later plan is for another network than the one that this plan leaves.
        """
        changes = {self.removal.original(layer.name): layer for layer in later.layers}
        layers = []
        for layer in self.layers:
            change = changes.pop(layer.name, None) if self.removal.renamed(layer.name) else None
            if change is not None and change.total != len(layer.kept):
                raise UserError(
                    f"The plans do not follow one another: the first leaves {len(layer.kept)} channels in "
                    f"{layer.name} and the later one is for {change.total}."
                )
            kept = layer.kept if change is None else tuple(layer.kept[i] for i in change.kept)
            layers.append(LayerPlan(layer.name, kept, layer.total))
        # A layer that became prunable only when others had gone.
        layers += [LayerPlan(name, layer.kept, layer.total) for name, layer in changes.items()]
        # Convolutions cost in proportion to the area, so the cost at another image size follows exactly.
        area = (later.image_size / self.image_size) ** 2
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
        """Plain JSON data; kept channels are written as ranges ("0-5,7")."""
        data = asdict(self)
        del data["removal"]
        data |= self.removal.to_dict()
        data["layers"] = {layer.name: {"kept": _ranges(layer.kept), "total": layer.total} for layer in self.layers}
        data["notes"] = list(self.notes)
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Plan:
        """Reads what `to_dict` gave.

        Raises:
            UserError: a field is missing or wrong.
        """
        try:
            layers = tuple(
                LayerPlan(name, _indices(entry["kept"]), int(entry["total"])) for name, entry in data["layers"].items()
            )
            return Plan(
                layers=layers,
                units=int(data["units"]),
                units_kept=int(data["units_kept"]),
                before=Price(**data["before"]),
                after=Price(**data["after"]),
                image_size=int(data["image_size"]),
                budget=Budget(**data["budget"]) if data["budget"] else None,
                criterion=str(data["criterion"]),
                notes=tuple(data["notes"]),
                removal=Removal.from_dict(data),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"This is not a pruning plan ({type(error).__name__}: {error}).") from error

    def table(self) -> str:
        """Text: one line a layer with its kept and total channels, then the totals."""
        width = max([len(layer.name) for layer in self.layers], default=5)
        lines = [f"{'layer':<{width}}  {'kept':>6} / {'total':<6}  share"]
        for layer in self.layers:
            share = len(layer.kept) / layer.total
            lines.append(f"{layer.name:<{width}}  {len(layer.kept):>6} / {layer.total:<6}  {share:5.0%}")
        lines.append(f"{'units':<{width}}  {self.units_kept:>6} / {self.units:<6}  {1 - self.removed_share:5.0%}")
        for name, before, after in (
            ("parameters", self.before.parameters, self.after.parameters),
            (f"FLOPs at {self.image_size} px", self.before.flops, self.after.flops),
        ):
            lines.append(f"{name}: {before:,} -> {after:,} ({after / max(before, 1):.1%})")
        if self.removed_blocks:
            lines.append(f"removed blocks: {', '.join(self.removed_blocks)}")
        return "\n".join([*lines, *self.notes])


def kept_channels(plan: Plan | Mapping[str, Any], layer: str) -> Ids | None:
    """Channels that a layer keeps, [kept] int64 indices into those of the network that the plan was made for.

    Args:
        plan: a plan, or the JSON data of one (`Checkpoint.plan`).
        layer: name of a convolution in that network, e.g. "model.17.cv3.conv".

    Returns:
        None if the plan does not speak of the layer, so that all of it stays; no index if its block is removed.
    """
    plan = plan if isinstance(plan, Plan) else Plan.from_dict(dict(plan))
    entry = next((entry for entry in plan.layers if entry.name == layer), None)
    return None if entry is None else np.array(entry.kept, dtype=np.int64)


def _ranges(indices: tuple[int, ...]) -> str:
    array = np.array(indices, dtype=np.int64)
    runs = np.split(array, np.flatnonzero(np.diff(array) != 1) + 1) if len(array) else []
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _indices(text: str) -> tuple[int, ...]:
    indices: list[int] = []
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        indices.extend(range(int(first), int(last or first) + 1))
    return tuple(indices)
