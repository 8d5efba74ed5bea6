"""A plan carried out as a whole: blocks leave first, then channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from secateur.pruning.depth.selection import remove
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut

Network = TypeVar("Network", bound=nn.Module)


def without_removed_blocks(network: Network, plan: Plan) -> Network:
    """A network without the blocks that the plan removes: itself where there are none."""
    return remove(network, plan.removed_blocks) if plan.removed_blocks else network


def carve(network: Network, plan: Plan, traced: Callable[[Network], ChannelGraph] = trace) -> Network:
    """A new network without the blocks and channels that the plan removes; the old one is left alone.

    Raises:
        UserError: the plan is for another network.
    """
    shorter = without_removed_blocks(network, plan)
    return cut(shorter, traced(shorter), plan)
