"""Criteria: how much each unit matters. A new one is one function `(graph, statistics) -> scores [units]`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from torch import Tensor
from torch.linalg import vector_norm

from secateur.errors import UserError
from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.operators import Ids
from secateur.pruning.statistics import Statistics, Tie

Criterion = Callable[[ChannelGraph, Statistics], Floats]
CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Registers a criterion under a name."""

    def register(function: Criterion) -> Criterion:
        CRITERIA[name] = function
        return function

    return register


def score(name: str, graph: ChannelGraph, statistics: Statistics, *, tie: Tie = "mean", seed: int = 0) -> Floats:
    """Scores [units], float64, higher is more important; the members of a tied unit are joined by `tie`.

    Raises:
        UserError: unknown criterion or tie, or statistics without what it needs.
    """
    if name not in CRITERIA:
        raise UserError(f"Unknown criterion {name!r}; choose one of {', '.join(sorted(CRITERIA))}.")
    if tie not in ("mean", "sum", "max"):
        raise UserError(f"Unknown way to join tied channels {tie!r}; choose mean, sum or max.")
    return CRITERIA[name](graph, replace(statistics, tie=tie, seed=seed))


def needs_gradients(name: str) -> bool:
    """Whether a criterion reads gradients of labelled images."""
    return name in ("taylor", "fisher")


@criterion("gamma")
def gamma(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """|gamma| of the batch norms that a unit passes (https://arxiv.org/abs/1708.06519).

    |gamma| is the spread of a normalised channel. A unit without a batch norm is scored by the like of it: the L2 norm
    of its filter, which is the spread of its output for independent inputs of variance one.
    """
    values = [(units, statistics.tensors[f"{layer}.weight"].abs()) for layer, units in graph.norms.items()]
    scores = _joined(graph, statistics.tie, values)
    return np.where(np.isnan(scores), _filters(graph, statistics, lambda rows: vector_norm(rows, dim=1)), scores)


@criterion("gamma_kernel")
def gamma_kernel(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """|gamma| times the mean |weight| of the filter before it: of the pair where the norm alone reads the
    convolution, else of the unit's gammas and filters."""
    values = []
    for layer, norm in graph.norm_after.items():
        axis = graph.filters.get(layer)
        if axis is not None and len(axis.units) == len(graph.norms.get(norm, ())):
            kernel = _mean_magnitude(_rows(statistics.tensors[axis.tensor], axis.dim))
            values.append((graph.norms[norm], kernel * statistics.tensors[f"{norm}.weight"].abs()))
    scores = _joined(graph, statistics.tie, values)
    return np.where(np.isnan(scores), gamma(graph, statistics) * l1(graph, statistics), scores)


@criterion("l1")
def l1(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Mean |weight| of the filter, batch norm not folded in. The mean, not the sum, so that fan-in does not decide."""
    return _filters(graph, statistics, _mean_magnitude)


@criterion("l2")
def l2(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Root mean square weight of the filter, batch norm not folded in."""
    return _filters(graph, statistics, lambda rows: vector_norm(rows, dim=1) / rows.shape[1] ** 0.5)


@criterion("taylor")
def taylor(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """First-order change of the loss, summed over the unit before the absolute value is taken (`tie` plays no part)."""
    return _gradient_statistic(statistics.taylor, "taylor")


@criterion("fisher")
def fisher(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """The same change, squared batch by batch (`tie` plays no part)."""
    return _gradient_statistic(statistics.fisher, "fisher")


@criterion("random")
def random(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Uniform random scores: what a criterion has to beat."""
    return np.random.default_rng(statistics.seed).random(graph.units)


def _gradient_statistic(values: Floats | None, name: str) -> Floats:
    if values is None:
        raise UserError(f"The criterion {name} needs gradients; give labelled images or choose gamma, l1 or l2.")
    return values


def _rows(weight: Tensor, dim: int) -> Tensor:
    """A weight as [entries along `dim`, all others]."""
    return weight.movedim(dim, 0).flatten(1)


def _mean_magnitude(rows: Tensor) -> Tensor:
    """Mean |value| of each row, without a temporary of the rows' size."""
    mean: Tensor = vector_norm(rows, ord=1, dim=1) / rows.shape[1]
    return mean


def _filters(graph: ChannelGraph, statistics: Statistics, measure: Callable[[Tensor], Tensor]) -> Floats:
    values = [
        (axis.units, measure(_rows(statistics.tensors[axis.tensor], axis.dim))) for axis in graph.filters.values()
    ]
    return _joined(graph, statistics.tie, values)


def _joined(graph: ChannelGraph, tie: Tie, values: Iterable[tuple[Ids, Tensor]]) -> Floats:
    """One value a unit from the values of its members; NaN for a unit without members."""
    total, count, largest = np.zeros(graph.units), np.zeros(graph.units), np.full(graph.units, -np.inf)
    for units, tensor in values:
        used = units >= 0
        members = tensor.double().numpy()[used]
        np.add.at(total, units[used], members)
        np.add.at(count, units[used], 1)
        np.maximum.at(largest, units[used], members)
    joined = {"sum": total, "mean": total / np.maximum(count, 1), "max": largest}[tie]
    return np.where(count > 0, joined, np.nan)
