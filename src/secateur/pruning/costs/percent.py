"""Share of the prunable channels: the budget of network slimming, which says what goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.pruning.costs import cost

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize


@dataclass(frozen=True)
class Units:
    """Number of units that stay; each counts one, whatever it costs."""

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
