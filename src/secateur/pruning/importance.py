"""How much each unit matters: the door to the criteria, and what they are made of.

A new criterion is one file in `secateur/pruning/criteria`, or one of the user's, with a function
`(graph, statistics) -> scores [units]` under the decorator `criterion`.
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
    """A measure of importance.

    Attributes:
        measure: gives the scores.
        gradients: whether it reads gradients of labelled images.
        loss: whether the scores are changes of the loss, so that loss per saved cost has a meaning.
    """

    measure: Measure
    gradients: bool = False
    loss: bool = False


CRITERIA: Registry[Criterion] = Registry("criterion", "secateur.pruning.criteria")


def criterion(name: str, *, gradients: bool = False, loss: bool = False) -> Callable[[Measure], Measure]:
    """Registers a measure under a name; with `gradients` it is given those of labelled images."""

    def register(measure: Measure) -> Measure:
        CRITERIA.register(name)(Criterion(measure, gradients, loss))
        return measure

    return register


def score(name: str, graph: ChannelGraph, statistics: Statistics, *, tie: Tie = "mean", seed: int = 0) -> Floats:
    """Scores [units], float64, higher is more important; the members of a tied unit are joined by `tie`.

    With "max" a unit stays if any of its members is over the threshold: the masks merged by a logical OR of SlimYOLOv3
    (https://arxiv.org/abs/1907.11093). With "min" it stays only if all of them are: a logical AND.

    Raises:
        UserError: unknown criterion or tie, or statistics without what it needs.
    """
    if tie not in get_args(Tie):
        raise UserError(f"Unknown way to join tied channels {shown(tie)}; choose one of {', '.join(get_args(Tie))}.")
    return CRITERIA[name].measure(graph, replace(statistics, tie=tie, seed=seed))


def needs_gradients(name: str) -> bool:
    """Whether a criterion reads gradients of labelled images.

    Raises:
        UserError: unknown criterion.
    """
    return CRITERIA[name].gradients


def divides_by_saving(name: str, per_saving: PerSaving) -> bool:
    """Whether scores of a criterion are divided by what a unit saves: "always", "never", or "auto" by its kind.

    Raises:
        UserError: unknown criterion.
    """
    return CRITERIA[name].loss if per_saving == "auto" else per_saving == "always"


def filters(graph: ChannelGraph, statistics: Statistics, measure: Callable[[Tensor], Tensor]) -> Floats:
    """Scores [units] from the filters alone: `measure` takes rows [filters, weights] and gives [filters]."""
    values = [
        (axis.units, measure(rows_of(statistics.tensors[axis.tensor], axis.dim))) for axis in graph.filters.values()
    ]
    return joined(graph, statistics.tie, values)


def joined(graph: ChannelGraph, tie: Tie, values: Iterable[tuple[Ids, Tensor]]) -> Floats:
    """One value a unit, [units], from the values of its members; NaN for a unit without members.

    Args:
        values: pairs of units and values, both [channels] of one layer; unit -1 is no unit.
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
    """A weight as [entries along `dim`, all others]."""
    return weight.movedim(dim, 0).flatten(1)


def mean_magnitude(rows: Tensor) -> Tensor:
    """Mean |value| of each row, without a temporary of the rows' size."""
    mean: Tensor = vector_norm(rows, ord=1, dim=1) / rows.shape[1]
    return mean
