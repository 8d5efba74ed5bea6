"""Importance criteria, one function each, that return float64 scores [units].

To add a criterion, add a function here or a file in this folder.
"""

from __future__ import annotations

import numpy as np
from torch.linalg import vector_norm

from secateur.errors import UserError
from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.importance import criterion, filters, joined, mean_magnitude, rows_of
from secateur.pruning.statistics import Statistics


@criterion("l1")
def l1(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Mean |weight| of the filter, [units] (https://arxiv.org/abs/1608.08710). The mean instead of the sum makes the
    score independent of the fan-in."""
    return filters(graph, statistics, mean_magnitude)


@criterion("l2")
def l2(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Root mean square weight of the filter, [units]."""
    return filters(graph, statistics, lambda rows: vector_norm(rows, dim=1) / rows.shape[1] ** 0.5)


@criterion("gamma")
def gamma(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """|gamma| of the batch norms after the unit, [units] (https://arxiv.org/abs/1708.06519).

    |gamma| is the standard deviation of a normalised channel. A unit without a batch norm gets a comparable score: the
    L2 norm of its filter, which is the standard deviation of its output for independent inputs of unit variance.
    """
    values = [(units, statistics.tensors[f"{layer}.weight"].abs()) for layer, units in graph.norms.items()]
    scores = joined(graph, statistics.tie, values)
    return np.where(np.isnan(scores), filters(graph, statistics, lambda rows: vector_norm(rows, dim=1)), scores)


@criterion("gamma_kernel")
def gamma_kernel(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """|gamma| times the mean |weight| of the filter before it, [units] (https://doi.org/10.1007/978-3-030-86380-7_4).

    The two are paired if the norm is the only reader of the convolution; otherwise the means over the unit are
    multiplied.
    """
    values = []
    for layer, norm in graph.norm_after.items():
        axis = graph.filters.get(layer)
        if axis is not None and len(axis.units) == len(graph.norms.get(norm, ())):
            kernel = mean_magnitude(rows_of(statistics.tensors[axis.tensor], axis.dim))
            values.append((graph.norms[norm], kernel * statistics.tensors[f"{norm}.weight"].abs()))
    scores = joined(graph, statistics.tie, values)
    return np.where(np.isnan(scores), gamma(graph, statistics) * l1(graph, statistics), scores)


@criterion("taylor", gradients=True, loss=True)
def taylor(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """First-order change of the loss, [units]; summed over the unit before the absolute value is taken, so `tie` has
    no effect (https://arxiv.org/abs/1906.10771)."""
    return _gathered(statistics.taylor, "taylor")


@criterion("fisher", gradients=True, loss=True)
def fisher(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """The first-order change of the loss, squared per image, [units]; `tie` has no effect."""
    return _gathered(statistics.fisher, "fisher")


def _gathered(values: Floats | None, name: str) -> Floats:
    if values is None:
        raise UserError(f"The criterion {name} needs gradients. Provide labelled images, or use gamma, l1 or l2.")
    return values


@criterion("random")
def random(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Uniform random scores [units] from the seed of the statistics: the baseline for all other criteria."""
    return np.random.default_rng(statistics.seed).random(graph.units)
