"""Costs that are counted: floating-point operations, parameters, and the share of prunable channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.pruning.costs import cost

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize


@cost(
    "flops",
    unit="FLOPs",
    help="FLOPs to keep at --image-size: a share of the dense model (0.5 or 50%) or a number (3.2G).",
    absolute="3.2G",
    least=1000,
)
@dataclass(frozen=True)
class Flops:
    """FLOPs for one image of a given size: two per multiply-add of convolutions and linear layers.

    `price` takes a mask, bool [units]; `savings` returns float64 [units], in FLOPs.
    """

    graph: ChannelGraph
    image_size: ImageSize = None
    name: str = "flops"
    unit: str = "FLOPs"

    def price(self, keep: Bools) -> float:
        return float(self.graph.price(keep, self.image_size).flops)

    def savings(self) -> Floats:
        return self.graph.pricing.flop_savings(self.graph.units, self.image_size)

    def inside(self, module: str) -> float:
        return float(self.graph.pricing.flops_inside(module, self.image_size))


@cost(
    "params",
    unit="parameters",
    help="Parameters to keep: a share of the dense model (0.5 or 50%) or a number (2e6, 2M).",
    absolute="2M",
    least=1000,
)
@dataclass(frozen=True)
class Parameters:
    """Number of trainable parameters; it does not depend on the image size.

    `price` takes a mask, bool [units]; `savings` returns float64 [units], in parameters.
    """

    graph: ChannelGraph
    image_size: ImageSize = None
    name: str = "params"
    unit: str = "parameters"

    def price(self, keep: Bools) -> float:
        return float(self.graph.price(keep).parameters)

    def savings(self) -> Floats:
        return self.graph.pricing.parameter_savings(self.graph.units)

    def inside(self, module: str) -> float:
        return float(self.graph.pricing.parameters_inside(module))


@cost(
    "percent",
    unit="units",
    help="Share of the prunable channels to remove, between 0 and 1 (as --percent of the slimming scripts).",
    example="0.3",
    removes=True,
)
@dataclass(frozen=True)
class Units:
    """Number of units kept, the budget of network slimming; independent of the image size.

    `price` takes a mask, bool [units]; `savings` returns ones, float64 [units].
    """

    graph: ChannelGraph
    image_size: ImageSize = None
    name: str = "percent"
    unit: str = "units"

    def price(self, keep: Bools) -> float:
        return float(keep.sum())

    def savings(self) -> Floats:
        return self.graph.everything().astype(float)

    def inside(self, module: str) -> float:
        return 0.0
