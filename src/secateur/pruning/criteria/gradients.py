"""The change of the loss when a channel goes, to first order: Taylor and Fisher criteria."""

from __future__ import annotations

from secateur.errors import UserError
from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.importance import criterion
from secateur.pruning.statistics import Statistics


@criterion("taylor", gradients=True, loss=True)
def taylor(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """First-order change of the loss, summed over the unit before the absolute value is taken (`tie` plays no part;
    https://arxiv.org/abs/1906.10771)."""
    return _gathered(statistics.taylor, "taylor")


@criterion("fisher", gradients=True, loss=True)
def fisher(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """The same change, squared image by image (`tie` plays no part)."""
    return _gathered(statistics.fisher, "fisher")


def _gathered(values: Floats | None, name: str) -> Floats:
    if values is None:
        raise UserError(f"The criterion {name} needs gradients; give labelled images or choose gamma, l1 or l2.")
    return values
