"""The batch norm scale as a channel's importance: network slimming."""

from __future__ import annotations

import numpy as np
from torch.linalg import vector_norm

from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.importance import criterion, filters, joined
from secateur.pruning.statistics import Statistics


@criterion("gamma")
def gamma(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """|gamma| of the batch norms that a unit passes (https://arxiv.org/abs/1708.06519).

    |gamma| is the spread of a normalised channel. A unit without a batch norm is scored by the like of it: the L2 norm
    of its filter, which is the spread of its output for independent inputs of variance one.
    """
    values = [(units, statistics.tensors[f"{layer}.weight"].abs()) for layer, units in graph.norms.items()]
    scores = joined(graph, statistics.tie, values)
    return np.where(np.isnan(scores), filters(graph, statistics, lambda rows: vector_norm(rows, dim=1)), scores)
