"""What a budget limits: one class a cost; every file here is found by itself.

A new cost is one file here, or one of the user's, with a function under the decorator `cost` that says what any choice
of the units of a graph costs. Its name is also the option (`--name`) and the key in a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

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
        of: the cost of a graph at an image size (None: what was traced).
        removes: whether the share says what goes; else what stays.
        absolute: an amount in the unit, as one writes it; empty where only shares have a meaning.
        least: smallest amount in the unit that can be meant; below it a bare number is a slip.
        factors: what may follow an amount, in lower case, and by how much it multiplies the number ("kb": 0.001 MB).
            Where there are any, an amount needs one, for a bare number could be a share as well. Empty: k, M, G and T.
        strict: what is a little over an amount does not meet it.
        files: the cost is that of a file, whose kind may follow a colon ("2MB:onnx-int8").
        means: name of the cost in whose unit budgets of this kind are meant, and the amount there; such a kind has no
            shares. None: its own.
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
    """Registers a cost under a name; see `CostKind` for these and the rest."""

    def register(make: Make) -> Make:
        COSTS.register(name)(CostKind(name, unit, help, example, of=make, **more))
        return make

    return register
