"""The cliff curve: what is evaluated, where the knee is, when it warns."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from networks import Chain, ConvNorm, enliven

from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.cliff import Cliff, Point, cliff, knee_of
from secateur.pruning.graph import trace
from secateur.pruning.settings import Guards


@dataclass
class Result:
    mAP50: float  # noqa: N815
    mAP50_95: float  # noqa: N815


def points(values: list[float]) -> tuple[Point, ...]:
    return tuple(Point(i / 10, value, value / 2, 100, 1000) for i, value in enumerate(values))


@pytest.mark.parametrize(
    ("values", "knee"),
    [
        ([0.8, 0.8, 0.79, 0.78, 0.3, 0.1, 0.0], 0.3),
        ([0.5, 0.0, 0.0, 0.0, 0.0], 0.0),
        ([0.8, 0.8, 0.8, 0.8], 0.3),
        ([0.8, 0.8, 0.1, 0.1, 0.1], 0.1),
        ([0.8, 0.75, 0.7, 0.65], 0.3),
        ([0.0, 0.0, 0.0], None),
    ],
)
def test_knee(values: list[float], knee: float | None) -> None:
    assert knee_of(points(values)) == knee


def test_curve_of_a_network() -> None:
    network = enliven(Chain(lambda x, a: a(x), out=40, a=ConvNorm(8, 40, 3)))
    graph = trace(network)
    scores = np.arange(graph.units) + 1.0
    chosen = allocate(graph, scores, Budget("percent", 0.75), Guards(min_share=0, round_to=1), image_size=64)
    seen = []

    def evaluate(candidate: Chain) -> Result:
        parameters = sum(parameter.numel() for parameter in candidate.parameters())
        seen.append(parameters)
        accuracy = 0.8 if parameters > 1000 else 0.1
        return Result(accuracy, accuracy / 2)

    curve = cliff(evaluate, network, graph, scores, Guards(min_share=0, round_to=1), chosen=chosen, image_size=64)
    assert len(curve.points) == len(seen) == 11
    assert [point.parameters for point in curve.points] == sorted(seen, reverse=True)
    assert [point.ratio for point in curve.points if point.chosen] == [0.75]
    assert curve.points[0].ratio == 0 and curve.points[0].parameters == chosen.before.parameters
    assert curve.warning is not None and "past the knee" in curve.warning and "0.100" in curve.warning
    table = curve.table().splitlines()
    assert sum("<- chosen" in line for line in table) == 1 and sum("<- knee" in line for line in table) == 1
    assert json.loads(json.dumps(curve.to_dict()))["points"][0]["ratio"] == 0


def test_no_warning_before_the_knee() -> None:
    line = points([0.8, 0.8, 0.79, 0.2])
    marked = tuple(Point(p.ratio, p.mAP50, p.mAP50_95, 1, 1, chosen=p.ratio == 0.1) for p in line)
    assert Cliff(marked, knee_of(line)).warning is None


def test_rungs_that_guards_do_not_allow_are_one() -> None:
    network = enliven(Chain(lambda x: x))
    graph = trace(network)
    curve = cliff(
        lambda _: Result(0.5, 0.3), network, graph, np.arange(8.0), Guards(min_share=0.5, round_to=1), image_size=64
    )
    assert max(point.ratio for point in curve.points) == 0.5


def test_rungs_may_be_budgets_of_any_cost() -> None:
    network = enliven(Chain(lambda x, a: a(x), out=40, a=ConvNorm(8, 40, 3)))
    graph = trace(network)
    rungs = [Budget("params", 0.8), Budget("flops", 0.5)]
    curve = cliff(lambda _: Result(0.5, 0.3), network, graph, np.arange(48.0), Guards(round_to=1), budgets=rungs)
    dense, first, second = curve.points
    assert 0.7 < first.parameters / dense.parameters <= 0.8
    assert 0.35 < second.flops / dense.flops <= 0.5
