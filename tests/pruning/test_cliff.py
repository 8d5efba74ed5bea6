"""The cliff curve: what is evaluated, where the knee is, when it warns."""

from __future__ import annotations

import json

import numpy as np
import pytest

from networks import Chain, ConvNorm, enliven
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.cliff import Cliff, Point, cliff, knee_of
from secateur.pruning.graph import trace
from secateur.pruning.settings import Guards
from secateur.scores import Scores


def result(loose: float, strict: float) -> Scores:
    return Scores("mAP50-95", {"mAP50": loose, "mAP50-95": strict}, coarse="mAP50")


def points(values: list[float]) -> tuple[Point, ...]:
    return tuple(Point(i / 10, result(value, value / 2), 100, 1000) for i, value in enumerate(values))


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

    def evaluate(candidate: Chain) -> Scores:
        parameters = sum(parameter.numel() for parameter in candidate.parameters())
        seen.append(parameters)
        accuracy = 0.8 if parameters > 1000 else 0.1
        return result(accuracy, accuracy / 2)

    curve = cliff(evaluate, network, graph, scores, Guards(min_share=0, round_to=1), chosen=chosen, image_size=64)
    assert len(curve.points) == len(seen) == 11
    assert [point.parameters for point in curve.points] == sorted(seen, reverse=True)
    assert [point.ratio for point in curve.points if point.chosen] == [0.75]
    assert curve.points[0].ratio == 0 and curve.points[0].parameters == chosen.before.parameters
    assert curve.warning is not None and "more than at the knee" in curve.warning and "0.100" in curve.warning
    table = curve.table().splitlines()
    assert sum("<- chosen" in line for line in table) == 1 and sum("<- knee" in line for line in table) == 1
    assert json.loads(json.dumps(curve.to_dict()))["points"][0]["ratio"] == 0


def test_no_warning_before_the_knee() -> None:
    line = points([0.8, 0.8, 0.79, 0.2])
    marked = tuple(Point(p.ratio, p.scores, 1, 1, chosen=p.ratio == 0.1) for p in line)
    assert Cliff(marked, knee_of(line)).warning is None


def test_rungs_that_guards_do_not_allow_are_one() -> None:
    network = enliven(Chain(lambda x: x))
    graph = trace(network)
    curve = cliff(
        lambda _: result(0.5, 0.3), network, graph, np.arange(8.0), Guards(min_share=0.5, round_to=1), image_size=64
    )
    assert max(point.ratio for point in curve.points) == 0.5


def test_rungs_may_be_budgets_of_any_cost() -> None:
    network = enliven(Chain(lambda x, a: a(x), out=40, a=ConvNorm(8, 40, 3)))
    graph = trace(network)
    rungs = [Budget("params", 0.8), Budget("flops", 0.5)]
    curve = cliff(lambda _: result(0.5, 0.3), network, graph, np.arange(48.0), Guards(round_to=1), budgets=rungs)
    dense, first, second = curve.points
    assert 0.7 < first.parameters / dense.parameters <= 0.8
    assert 0.35 < second.flops / dense.flops <= 0.5


def test_the_table_and_the_data_name_every_figure_that_judges() -> None:
    curve = Cliff(
        (
            Point(0.0, result(0.8, 0.5), 2_000_000, 4_000_000_000),
            Point(0.4, result(0.2, 0.1), 1_000_000, 2_000_000_000, chosen=True, corrected=result(0.7, 0.4)),
        ),
        knee=0.4,
    )
    assert curve.table().splitlines() == [
        " removed   mAP50  change  mAP50-95 corrected  params (M)   GFLOPs",
        "    0.0%   0.800  +0.000     0.500         -       2.000        4",
        "   40.0%   0.200  -0.600     0.100     0.700       1.000        2 <- chosen <- knee",
    ]
    assert curve.to_dict()["points"][1] == {
        "ratio": 0.4, "mAP50": 0.2, "mAP50_95": 0.1, "parameters": 1_000_000, "flops": 2_000_000_000,
        "chosen": True, "corrected": 0.7,
    }  # fmt: skip


def test_a_classifier_has_one_figure() -> None:
    scores = [Scores("top-1", {"top-1": value, "top-5": 1.0}) for value in (0.9, 0.88, 0.2)]
    curve = tuple(Point(i / 10, one, 1_000_000, 1_000_000_000, chosen=i == 2) for i, one in enumerate(scores))
    found = Cliff(curve, knee_of(curve))
    assert found.knee == 0.1
    assert found.warning is not None and "top-1 is 0.200, against 0.880 at the knee" in found.warning
    assert found.table().splitlines()[:2] == [
        " removed   top-1  change  params (M)   GFLOPs",
        "    0.0%   0.900  +0.000       1.000        1",
    ]
    assert set(found.to_dict()["points"][0]) == {"ratio", "top_1", "parameters", "flops", "chosen", "corrected"}


def test_where_lower_is_better_the_knee_lies_before_the_rise() -> None:
    scores = [Scores("error", {"error": value}, higher_is_better=False) for value in (0.2, 0.21, 0.22, 0.6, 2.0)]
    curve = tuple(Point(i / 10, one, 1, 1) for i, one in enumerate(scores))
    assert knee_of(curve) == 0.2
