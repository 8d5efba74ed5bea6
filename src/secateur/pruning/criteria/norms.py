"""Norms of a channel's filter as its importance; batch norms play no part."""

from __future__ import annotations

from torch.linalg import vector_norm

from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.importance import criterion, filters, mean_magnitude
from secateur.pruning.statistics import Statistics


@criterion("l1")
def l1(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Mean |weight| of the filter (https://arxiv.org/abs/1608.08710). The mean, not the sum, so that fan-in does not
    decide."""
    return filters(graph, statistics, mean_magnitude)


@criterion("l2")
def l2(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Root mean square weight of the filter."""
    return filters(graph, statistics, lambda rows: vector_norm(rows, dim=1) / rows.shape[1] ** 0.5)
