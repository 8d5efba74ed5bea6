"""Milliseconds per image, and images per second, from the latency table attached to the graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from secateur.errors import UserError
from secateur.pruning.costs import COSTS, Cost, cost
from secateur.sizes import in_words, sides_of

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize
    from secateur.pruning.latency.staircase import Staircase


@dataclass(frozen=True)
class Milliseconds:
    """Latency of the network for one image, at the image size of the latency table.

    `price` takes a mask, bool [units]; `savings` returns float64 [units], in milliseconds.
    """

    graph: ChannelGraph
    name: str = "ms"
    unit: str = "ms"

    def price(self, keep: Bools) -> float:
        return self._staircase.price(keep)

    def savings(self) -> Floats:
        return self._staircase.savings()

    def inside(self, module: str) -> float:
        return self._staircase.inside(module)

    @cached_property
    def _staircase(self) -> Staircase:
        from secateur.pruning.latency.staircase import Staircase

        table, traced = self.graph.timing, self.graph.image_size
        if table is None or traced is None:
            raise UserError(
                "A budget in milliseconds needs a network with one image input, and a latency table in its graph: "
                "dataclasses.replace(graph, timing=secateur.latency(model))."
            )
        return Staircase(table, self.graph.operations, self.graph.units, traced)


@cost(
    "ms",
    unit="ms",
    help="Milliseconds for one image on this machine: a share of the dense model's (0.6 or 60%) or a number (8).",
    example="0.6",
    absolute="8",
)
def ms(graph: ChannelGraph, image_size: ImageSize = None) -> Milliseconds:
    """Milliseconds at the image size of the table.

    A detector for wide images is scored on squares of the longer side. So a table for wide images is also accepted for
    that square size.

    Raises:
        UserError: the table is for another image size.
    """
    table = graph.timing
    if table is not None and image_size is not None:
        asked, own = sides_of(image_size), sides_of(table.image_size)
        if asked not in (own, (max(own), max(own))):
            raise UserError(
                f"The latency table was measured at {in_words(own)} px, not at {' x '.join(map(str, asked))} px. "
                "Measure one for this size with `secateur latency`."
            )
    return Milliseconds(graph)


@cost(
    "fps",
    unit="fps",
    help="Images per second on this machine (30: --ms 33.3).",
    example="30",
    absolute="30",
    means=("ms", lambda number: 1000 / number),
)
def fps(graph: ChannelGraph, image_size: ImageSize = None) -> Cost:
    """Like `ms`: a budget in images per second is converted to milliseconds when it is parsed."""
    return COSTS["ms"].of(graph, image_size)
