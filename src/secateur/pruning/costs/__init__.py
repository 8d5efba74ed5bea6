"""Costs that a budget can limit, one class per cost. All files in this folder are loaded automatically.

To add a cost, add a file here, or import one of your own, with a function decorated with `cost` that returns the cost
of any selection of units of a graph. The name of the cost is also its option (`--name`) and its key in a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize


class Cost(Protocol):
    """The cost of one network at one image size."""

    @property
    def name(self) -> str:
        """Name of the kind of cost ("flops")."""
        ...

    @property
    def unit(self) -> str:
        """Unit in which the cost is counted ("FLOPs")."""
        ...

    def price(self, keep: Bools) -> float:
        """Cost of the network that keeps the units `keep`, bool [units]. Removing a unit never raises the cost."""
        ...

    def savings(self) -> Floats:
        """First-order estimate of what removing only that unit saves: float64 [units], in the unit of the cost, not
        negative."""
        ...

    def inside(self, module: str) -> float:
        """Cost of the layers inside a module ("model.4.m.0") of the network as it is, which is what its removal
        saves."""
        ...


Make = Callable[["ChannelGraph", "ImageSize"], Cost]


@dataclass(frozen=True)
class CostKind:
    """One kind of cost, and the format of its budgets.

    Attributes:
        name: name of the cost, of its option and of its recipe key.
        unit: unit, as written after a number.
        help: text for --help.
        example: a share of the dense network, as a user writes it.
        of: returns the cost of a graph at an image size (None: the traced size).
        removes: whether a share is the part to remove; otherwise it is the part to keep.
        absolute: an amount with its unit, as a user writes it; empty if only shares are accepted.
        least: smallest plausible amount. A smaller number without a unit is treated as an error.
        factors: lower-case suffixes and their factors ("kb": 0.001 MB). If set, an amount needs a suffix, because a
            bare number could also be a share. If empty: k, M, G and T.
        strict: a cost slightly above the amount does not meet the budget.
        files: the cost is a file size; the kind of file may follow a colon ("2MB:onnx-int8").
        means: name of the cost to which budgets of this kind are converted, and the conversion of the amount; such a
            kind accepts no shares. None: no conversion.
    """

    name: str
    unit: str
    help: str
    example: str
    of: Make
    removes: bool = False
    absolute: str = ""
    least: float = 0.0
    factors: Mapping[str, float] = field(default_factory=dict)
    strict: bool = False
    files: bool = False
    means: tuple[str, Callable[[float], float]] | None = None


COSTS: Registry[CostKind] = Registry("cost", "secateur.pruning.costs")


def cost(name: str, *, unit: str, help: str, example: str = "0.5", **more: Any) -> Callable[[Make], Make]:
    """Registers a cost under a name; see `CostKind` for the arguments."""

    def register(make: Make) -> Make:
        COSTS.register(name)(CostKind(name, unit, help, example, of=make, **more))
        return make

    return register
