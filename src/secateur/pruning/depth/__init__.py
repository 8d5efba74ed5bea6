"""Layer pruning: which blocks can be removed from their chains, the selection, and the network without them."""

from secateur.pruning.depth.chains import ChainBlock, Chained, left_of
from secateur.pruning.depth.selection import (
    Selection,
    candidates,
    choose,
    members,
    removal_of,
    remove,
    select,
)

__all__ = [
    "ChainBlock",
    "Chained",
    "Selection",
    "candidates",
    "choose",
    "left_of",
    "members",
    "removal_of",
    "remove",
    "select",
]
