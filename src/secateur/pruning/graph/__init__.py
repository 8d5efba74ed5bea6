"""The channel graph: which channels are tied, which tensors they index, and the cost of any selection of them."""

from secateur.pruning.graph.channels import ChannelGraph, Frozen, FrozenChannels, Space, Tables
from secateur.pruning.graph.flow import Ids
from secateur.pruning.graph.pricing import Axis, Bools, Floats, ImageSize, Price
from secateur.pruning.graph.remaining import remaining
from secateur.pruning.graph.size_table import SizeTable, Stored
from secateur.pruning.graph.tracing import trace

__all__ = [
    "Axis",
    "Bools",
    "ChannelGraph",
    "Floats",
    "Frozen",
    "FrozenChannels",
    "Ids",
    "ImageSize",
    "Price",
    "SizeTable",
    "Space",
    "Stored",
    "Tables",
    "remaining",
    "trace",
]
