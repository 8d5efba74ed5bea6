"""Floating-point operations for one image: two for each multiply-add of convolutions and linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.pruning.costs import cost

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize


@dataclass(frozen=True)
class Flops:
    """Operations of the network for one image of a size."""

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
