"""Budgets are met, guards hold, and what cannot be reached is said with the closest value."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Chain, ConvNorm
from torch import nn

from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from secateur.errors import UserError
from secateur.pruning.budget import Budget, Guards, Plan, allocate, normalized, per_cost
from secateur.pruning.graph import ChannelGraph, Floats, trace


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(Detector(Topology.from_yaml("yolov5n", nc=3)))


@pytest.fixture(scope="module")
def scores(graph: ChannelGraph) -> Floats:
    return np.random.default_rng(0).lognormal(size=graph.units)


@pytest.mark.parametrize(
    ("kind", "text", "amount"),
    [
        ("percent", "0.3", 0.3),
        ("percent", "30%", 0.3),
        ("params", "2M", 2e6),
        ("params", "800k", 8e5),
        ("params", 0.4, 0.4),
        ("flops", "3.2G", 3.2e9),
        ("flops", "2e9", 2e9),
        ("flops", " 50% ", 0.5),
    ],
)
def test_parse(kind: str, text: str, amount: float) -> None:
    assert Budget.parse(kind, text).amount == pytest.approx(amount)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("percent", "0", "not between 0 and 1"),
        ("percent", "1", "not between 0 and 1"),
        ("percent", "1.5", "not between 0 and 1"),
        ("percent", "-1", "not between 0 and 1"),
        ("percent", "nan", "not a number"),
        ("flops", "half", "not a number"),
        ("flops", "", "not a number"),
        ("flops", "-2G", "not positive"),
        ("params", "0", "not positive"),
        ("params", "inf", "not positive"),
        ("seconds", "3", "Unknown kind"),
    ],
)
def test_parse_refuses(kind: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Budget.parse(kind, text)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize(("kind", "amount"), [("flops", 0.5), ("flops", 2e9), ("params", 0.3), ("params", 9e5)])
def test_budget_is_met(graph: ChannelGraph, scores: Floats, kind: str, amount: float, round_to: int) -> None:
    plan = allocate(graph, scores, Budget.parse(kind, amount), Guards(round_to=round_to))
    dense, reached = (getattr(p, {"params": "parameters"}.get(kind, kind)) for p in (plan.before, plan.after))
    target = amount * dense if amount < 1 else amount
    assert 0.99 * target <= reached <= target
    assert plan.after == graph.price(plan.keep(graph))


@pytest.mark.parametrize("percent", [0.01, 0.3, 0.5])
def test_percent_is_met(graph: ChannelGraph, scores: Floats, percent: float) -> None:
    plan = allocate(graph, scores, Budget("percent", percent), Guards(min_share=0))
    assert plan.removed_share == pytest.approx(percent, abs=1 / graph.units)


def test_highest_scores_are_kept(graph: ChannelGraph, scores: Floats) -> None:
    keep = allocate(graph, scores, Budget("percent", 0.3), Guards(min_share=0)).keep(graph)
    assert scores[keep].min() >= scores[~keep].max()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 999),
    amount=st.floats(0.3, 0.95),
    kind=st.sampled_from(["percent", "params", "flops"]),
    min_share=st.sampled_from([0.0, 0.1, 0.3]),
    min_count=st.sampled_from([1, 4, 9]),
    round_to=st.sampled_from([1, 4, 8, 16]),
)
def test_guards_hold(
    graph: ChannelGraph, seed: int, amount: float, kind: str, min_share: float, min_count: int, round_to: int
) -> None:
    guards = Guards(min_share, min_count, round_to, exclude=("model.2",))
    scores = np.random.default_rng(seed).pareto(1.0, graph.units)
    plan = allocate(graph, scores, Budget.parse(kind, amount), guards, strict=False)
    again = allocate(graph, scores, Budget.parse(kind, amount), guards, strict=False)
    assert plan == again
    for layer in plan.layers:
        kept = len(layer.kept)
        assert kept >= min(layer.total, max(1, min_count, min_share * layer.total))
        assert kept % round_to == 0 or kept == layer.total
        assert kept == layer.total or not layer.name.startswith("model.2.")


def test_layer_that_would_be_emptied_is_clamped_and_named(graph: ChannelGraph) -> None:
    scores = np.ones(graph.units)
    scores[graph.emitted["model.5.conv"]] = 1e-3
    plan = allocate(graph, scores, Budget("percent", 0.3), Guards(min_share=0, min_count=2))
    assert any("model.5.conv would be emptied; 2 of 128 units stay" in note for note in plan.notes)
    assert {layer.name: len(layer.kept) for layer in plan.layers}["model.5.conv"] == 2


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget("flops", 0.001), r"budget flops 0.001 cannot be reached: the closest reachable value is [\d,]+ FLOPs"),
        (Budget("params", 10), r"budget params 10 cannot be reached: the closest reachable value is [\d,]+ parameters"),
        (Budget("percent", 0.97), "percent 0.97 cannot be reached: the closest reachable value is 0.89"),
    ],
)
def test_budget_out_of_reach(graph: ChannelGraph, scores: Floats, budget: Budget, words: str) -> None:
    with pytest.raises(UserError, match=words):
        allocate(graph, scores, budget)
    plan = allocate(graph, scores, budget, strict=False)
    assert any("closest reachable" in note for note in plan.notes)


def test_coarse_steps_name_the_closest_value() -> None:
    graph = trace(Chain(lambda x, a: a(x), out=8, a=ConvNorm(8, 8, 3)))
    plan = allocate(graph, np.arange(16.0), Budget("params", 0.9), Guards(round_to=4))
    assert plan.after.parameters < 0.9 * plan.before.parameters
    assert any("not met within 1 %" in note for note in plan.notes)


def test_dense_network_within_the_budget(graph: ChannelGraph, scores: Floats) -> None:
    plan = allocate(graph, scores, Budget("params", 1e9))
    assert plan.removed_share == 0 and "already within" in plan.notes[0]


def test_exclude_that_matches_nothing(graph: ChannelGraph, scores: Floats) -> None:
    with pytest.raises(UserError, match="--exclude backbone matches no prunable layer"):
        allocate(graph, scores, Budget("percent", 0.3), Guards(exclude=("backbone",)))


def test_nothing_to_prune() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(UserError, match="no channels that can be pruned"):
        allocate(graph, np.empty(0), Budget("percent", 0.3))


def test_scores_that_are_not_finite(graph: ChannelGraph) -> None:
    with pytest.raises(UserError, match="finite"):
        allocate(graph, np.full(graph.units, np.nan), Budget("percent", 0.3))


@pytest.mark.parametrize("wrong", [{"min_share": 1.5}, {"min_count": 0}, {"round_to": 0}])
def test_guards_refuse(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        Guards(**wrong)  # type: ignore[arg-type]


def test_normalisation(graph: ChannelGraph, scores: Floats) -> None:
    units = graph.spaces[3].units
    assert normalized(graph, scores, "mean")[units].mean() == pytest.approx(1)
    assert normalized(graph, scores, "max")[units].max() == pytest.approx(1)
    assert normalized(graph, scores, "none") is scores
    with pytest.raises(UserError, match="choose none, mean or max"):
        normalized(graph, scores, "median")  # type: ignore[arg-type]


def test_score_per_cost_removes_fewer_units_for_the_same_flops(graph: ChannelGraph, scores: Floats) -> None:
    plain = allocate(graph, scores, Budget("flops", 0.6))
    cheap = allocate(graph, per_cost(graph, scores, "flops"), Budget("flops", 0.6))
    assert cheap.removed_share < plain.removed_share


def test_plan_survives_json(graph: ChannelGraph, scores: Floats) -> None:
    plan = allocate(graph, scores, Budget("flops", 0.5), criterion="gamma")
    text = json.dumps(plan.to_dict())
    assert Plan.from_dict(json.loads(text)) == plan
    assert Plan.from_dict(Plan.everything(graph).to_dict()) == Plan.everything(graph)
    assert len(text) < 20_000


def test_plan_table(graph: ChannelGraph, scores: Floats) -> None:
    plan = allocate(graph, scores, Budget("flops", 0.5))
    lines = plan.table().splitlines()
    assert lines[1].split()[0] == "model.0.conv" and f"/ {plan.layers[0].total}" in lines[1]
    assert any(line.startswith("FLOPs at 640 px") for line in lines)


@pytest.mark.parametrize("wrong", [{}, {"layers": 3}, {"layers": {"a": {"kept": "x", "total": 1}}}])
def test_broken_plan_file(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="not a pruning plan"):
        Plan.from_dict(wrong)


def test_plan_of_another_network(graph: ChannelGraph) -> None:
    other = trace(Detector(Topology.from_yaml("yolov5s", nc=3)))
    with pytest.raises(UserError, match="The plan expects"):
        Plan.everything(other).keep(graph)
    with pytest.raises(UserError, match="other layers"):
        Plan.everything(other).keep(trace(Chain(lambda x: x)))


def test_plan_that_breaks_a_tie(graph: ChannelGraph) -> None:
    data = Plan.everything(graph).to_dict()
    data["layers"]["model.2.cv1.conv"]["kept"] = "0-7"
    with pytest.raises(UserError, match="tied"):
        Plan.from_dict(data).keep(graph)
