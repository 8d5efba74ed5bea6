"""The batch norm scale times the mean weight of the filter before it: Pruned-YOLO."""

from __future__ import annotations

import numpy as np

from secateur.pruning.criteria.gamma import gamma
from secateur.pruning.criteria.norms import l1
from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.importance import criterion, joined, mean_magnitude, rows_of
from secateur.pruning.statistics import Statistics


@criterion("gamma_kernel")
def gamma_kernel(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """|gamma| times the mean |weight| of the filter before it: of the pair where the norm alone reads the
    convolution, else of the unit's gammas and filters (https://doi.org/10.1007/978-3-030-86380-7_4)."""
    values = []
    for layer, norm in graph.norm_after.items():
        axis = graph.filters.get(layer)
        if axis is not None and len(axis.units) == len(graph.norms.get(norm, ())):
            kernel = mean_magnitude(rows_of(statistics.tensors[axis.tensor], axis.dim))
            values.append((graph.norms[norm], kernel * statistics.tensors[f"{norm}.weight"].abs()))
    scores = joined(graph, statistics.tie, values)
    return np.where(np.isnan(scores), gamma(graph, statistics) * l1(graph, statistics), scores)
