"""Costs that are counted: floating-point operations, parameters, and the share of the prunable channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.pruning.costs import cost

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize


@dataclass(frozen=True)
class Flops:
    """Operations for one image of a size: two for each multiply-add of convolutions and linear layers."""

    graph: ChannelGraph
    image_size: ImageSize
    name: str = "flops"
    unit: str = "FLOPs"

    def price(self, keep: Bools) -> float:
        return float(self.graph.price(keep, self.image_size).flops)

    def savings(self) -> Floats:
        return self.graph.pricing.flop_savings(self.graph.units, self.image_size)

    def inside(self, module: str) -> float:
        return float(self.graph.pricing.flops_inside(module, self.image_size))


@cost(
    "flops",
    unit="FLOPs",
    help="FLOPs to keep at --image-size: a share of the dense model (0.5 or 50%) or a number (3.2G).",
    absolute="3.2G",
    least=1000,
)
def flops(graph: ChannelGraph, image_size: ImageSize = None) -> Flops:
    """At the size that the network will see."""
    return Flops(graph, image_size)


@dataclass(frozen=True)
class Parameters:
    """Trainable numbers of the network."""

    graph: ChannelGraph
    name: str = "params"
    unit: str = "parameters"

    def price(self, keep: Bools) -> float:
        return float(self.graph.price(keep).parameters)

    def savings(self) -> Floats:
        return self.graph.pricing.parameter_savings(self.graph.units)

    def inside(self, module: str) -> float:
        return float(self.graph.pricing.parameters_inside(module))


@cost(
    "params",
    unit="parameters",
    help="Parameters to keep: a share of the dense model (0.5 or 50%) or a number (2e6, 2M).",
    absolute="2M",
    least=1000,
)
def params(graph: ChannelGraph, image_size: ImageSize = None) -> Parameters:
    """The image size plays no part."""
    return Parameters(graph)


@dataclass(frozen=True)
class Units:
    """Number of units that stay, the budget of network slimming; each counts one, whatever it costs."""

    graph: ChannelGraph
    name: str = "percent"
    unit: str = "units"

    def price(self, keep: Bools) -> float:
        return float(keep.sum())

    def savings(self) -> Floats:
        return self.graph.everything().astype(float)

    def inside(self, module: str) -> float:
        return 0.0


@cost(
    "percent",
    unit="units",
    help="Share of the prunable channels to remove, between 0 and 1 (as --percent of the slimming scripts).",
    example="0.3",
    removes=True,
)
def percent(graph: ChannelGraph, image_size: ImageSize = None) -> Units:
    """The image size plays no part."""
    return Units(graph)
