"""Number of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.pruning.costs import cost

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize


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
