"""What a budget limits: one class a cost; every file here is found by itself.

A new cost is one file here, or one of the user's, with a function under the decorator `cost` that says what any choice
of the units of a graph costs. Its name is also the option (`--name`) and the key in a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize


class Cost(Protocol):
    """The cost of one network, at one image size."""

    @property
    def name(self) -> str:
        """Name of the kind of cost ("flops")."""
        ...

    @property
    def unit(self) -> str:
        """What is counted ("FLOPs")."""
        ...

    def price(self, keep: Bools) -> float:
        """Cost of the network that keeps these units, [units] bool; it falls, or stays, when a unit goes."""
        ...

    def savings(self) -> Floats:
        """What the removal of each unit alone saves, to first order: [units], in the same unit, not negative."""
        ...

    def inside(self, module: str) -> float:
        """What the layers inside a module ("model.4.m.0") cost in the network as it is: what its removal saves."""
        ...


Make = Callable[["ChannelGraph", "ImageSize"], Cost]


@dataclass(frozen=True)
class CostKind:
    """One kind of cost, and how its budgets are written.

    Attributes:
        name: of the kind, of its option and of its key in a recipe.
        unit: what is counted, as it stands behind a number.
        help: sentence for --help.
        example: a share of the dense network, as one writes it.
        removes: whether the share says what goes; else what stays.
        of: the cost of a graph at an image size (None: what was traced).
        absolute: an amount in the unit, as one writes it; empty where only shares have a meaning.
        least: smallest amount in the unit that can be meant; below it a bare number is a slip.
    """

    name: str
    unit: str
    help: str
    example: str
    removes: bool
    of: Make
    absolute: str = ""
    least: float = 0.0


COSTS: Registry[CostKind] = Registry("cost", "secateur.pruning.costs")


def cost(
    name: str,
    *,
    unit: str,
    help: str,
    example: str = "0.5",
    removes: bool = False,
    absolute: str = "",
    least: float = 0,
) -> Callable[[Make], Make]:
    """Registers a cost under a name; see `CostKind` for the rest."""

    def register(make: Make) -> Make:
        COSTS.register(name)(CostKind(name, unit, help, example, removes, make, absolute, least))
        return make

    return register
