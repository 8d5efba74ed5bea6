"""Importance of units: the registry of criteria, and functions that criteria are built from.

To add a criterion, add a file to `secateur/pruning/criteria`, or import one of your own, with a function `(graph,
statistics) -> scores [units]` decorated with `criterion`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from torch import Tensor
from torch.linalg import vector_norm

from secateur.errors import UserError, shown
from secateur.pruning.graph import ChannelGraph, Floats, Ids
from secateur.pruning.settings import PerSaving, Tie
from secateur.pruning.statistics import Statistics
from secateur.registry import Registry

Measure = Callable[[ChannelGraph, Statistics], Floats]


@dataclass(frozen=True)
class Criterion:
    """A criterion.

    Attributes:
        measure: computes the scores.
        gradients: whether it needs gradients of labelled images.
        loss: whether the scores are changes of the loss, so that loss per saved cost is meaningful.
    """

    measure: Measure
    gradients: bool = False
    loss: bool = False


CRITERIA: Registry[Criterion] = Registry("criterion", "secateur.pruning.criteria")


def criterion(name: str, *, gradients: bool = False, loss: bool = False) -> Callable[[Measure], Measure]:
    """Registers a criterion under a name; with `gradients`, its statistics include gradients on labelled images."""

    def register(measure: Measure) -> Measure:
        CRITERIA.register(name)(Criterion(measure, gradients, loss))
        return measure

    return register


def score(name: str, graph: ChannelGraph, statistics: Statistics, *, tie: Tie = "mean", seed: int = 0) -> Floats:
    """Scores, float64 [units]; higher is more important. The members of a tied unit are combined by `tie`.

    With "max", a unit is kept if any member is above the threshold: the logical OR of masks of SlimYOLOv3
    (https://arxiv.org/abs/1907.11093). With "min", it is kept only if all members are: a logical AND.

    Raises:
        UserError: the criterion or tie is unknown, or the statistics lack data that the criterion needs.
    """
    if tie not in get_args(Tie):
        raise UserError(f"Unknown value of tie: {shown(tie)}. Choose one of: {', '.join(get_args(Tie))}.")
    return CRITERIA[name].measure(graph, replace(statistics, tie=tie, seed=seed))


def needs_gradients(name: str) -> bool:
    """Whether a criterion needs gradients of labelled images.

    Raises:
        UserError: the criterion is unknown.
    """
    return CRITERIA[name].gradients


def divides_by_saving(name: str, per_saving: PerSaving) -> bool:
    """Whether the scores of a criterion are divided by the saving of a unit: "always", "never", or "auto" by criterion.

    Raises:
        UserError: the criterion is unknown.
    """
    return CRITERIA[name].loss if per_saving == "auto" else per_saving == "always"


def filters(graph: ChannelGraph, statistics: Statistics, measure: Callable[[Tensor], Tensor]) -> Floats:
    """Scores [units] from filters only: `measure` takes rows [filters, weights] and returns [filters]."""
    values = [
        (axis.units, measure(rows_of(statistics.tensors[axis.tensor], axis.dim))) for axis in graph.filters.values()
    ]
    return joined(graph, statistics.tie, values)


def joined(graph: ChannelGraph, tie: Tie, values: Iterable[tuple[Ids, Tensor]]) -> Floats:
    """One value per unit, float64 [units], combined from the values of its members; NaN for a unit without members.

    Args:
        values: pairs of units and values, both [channels] of one layer; unit -1 means no unit.
    """
    total, count = np.zeros(graph.units), np.zeros(graph.units)
    largest, smallest = np.full(graph.units, -np.inf), np.full(graph.units, np.inf)
    for units, tensor in values:
        used = units >= 0
        members = tensor.double().numpy()[used]
        np.add.at(total, units[used], members)
        np.add.at(count, units[used], 1)
        np.maximum.at(largest, units[used], members)
        np.minimum.at(smallest, units[used], members)
    result = {"sum": total, "mean": total / np.maximum(count, 1), "max": largest, "min": smallest}[tie]
    return np.where(count > 0, result, np.nan)


def rows_of(weight: Tensor, dim: int) -> Tensor:
    """A weight of any shape as a matrix [size of `dim`, product of all other sizes]."""
    return weight.movedim(dim, 0).flatten(1)


def mean_magnitude(rows: Tensor) -> Tensor:
    """Mean |value|, [rows], of each row of [rows, n], without a temporary of the size of the input."""
    mean: Tensor = vector_norm(rows, ord=1, dim=1) / rows.shape[1]
    return mean
