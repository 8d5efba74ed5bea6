"""Budgets are met, guards hold, and what cannot be reached is said with the closest value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import Chain, ConvNorm
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.allocation import allocate, costs_of, scores_per_saving
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(Detector(Topology.from_yaml("yolov5n", nc=3)))


@pytest.fixture(scope="module")
def scores(graph: ChannelGraph) -> Floats:
    return np.random.default_rng(0).lognormal(size=graph.units)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize(("kind", "amount"), [("flops", 0.5), ("flops", 2e9), ("params", 0.3), ("params", 9e5)])
def test_budget_is_met(graph: ChannelGraph, scores: Floats, kind: str, amount: float, round_to: int) -> None:
    plan = allocate(graph, scores, Budget.parse(kind, amount), Guards(round_to=round_to), image_size=640)
    dense, reached = (getattr(p, {"params": "parameters"}.get(kind, kind)) for p in (plan.before, plan.after))
    target = amount * dense if amount < 1 else amount
    assert 0.99 * target <= reached <= target
    assert plan.after == graph.price(plan.keep(graph), 640)


@pytest.mark.parametrize("percent", [0.01, 0.3, 0.5])
def test_percent_is_met(graph: ChannelGraph, scores: Floats, percent: float) -> None:
    plan = allocate(graph, scores, Budget("percent", percent), Guards(min_share=0, round_to=1))
    assert plan.removed_share == pytest.approx(percent, abs=1 / graph.units)


def test_highest_scores_are_kept(graph: ChannelGraph, scores: Floats) -> None:
    keep = allocate(graph, scores, Budget("percent", 0.3), Guards(min_share=0, round_to=1)).keep(graph)
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
    plan = allocate(graph, scores, Budget("percent", 0.3), Guards(min_share=0, min_count=2, round_to=1))
    assert any("model.5.conv would lose all channels; 2 of 128 units are kept" in note for note in plan.notes)
    assert {layer.name: len(layer.kept) for layer in plan.layers}["model.5.conv"] == 2


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget("flops", 0.001), r"budget flops 0.001 cannot be reached: the closest reachable value is [\d,]+ FLOPs"),
        (
            Budget("params", 10, share=False),
            r"params 10 cannot be reached: the closest reachable value is [\d,]+ parameters",
        ),
        (Budget("percent", 0.97), "percent 0.97 cannot be reached: the closest reachable value is 0.89"),
    ],
)
def test_budget_out_of_reach(graph: ChannelGraph, scores: Floats, budget: Budget, words: str) -> None:
    with pytest.raises(UserError, match=words):
        allocate(graph, scores, budget, Guards(min_share=0.1, round_to=1))
    plan = allocate(graph, scores, budget, strict=False)
    assert any("closest reachable" in note for note in plan.notes)


def test_coarse_steps_name_the_closest_value() -> None:
    graph = trace(Chain(lambda x, a: a(x), out=8, a=ConvNorm(8, 8, 3)))
    plan = allocate(graph, np.arange(16.0), Budget("params", 0.9), Guards(round_to=4))
    assert plan.after.parameters < 0.9 * plan.before.parameters
    assert any("not met within 1 %" in note for note in plan.notes)


def test_dense_network_within_the_budget(graph: ChannelGraph, scores: Floats) -> None:
    plan = allocate(graph, scores, Budget("params", 1e9, share=False))
    assert plan.removed_share == 0 and "already within" in plan.notes[0]


def test_exclude_that_matches_nothing(graph: ChannelGraph, scores: Floats) -> None:
    with pytest.raises(UserError, match="--exclude backbone matches no prunable layer"):
        allocate(graph, scores, Budget("percent", 0.3), Guards(exclude=("backbone",)))


def test_nothing_to_prune() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(UserError, match=r"no prunable channels: all 4 channels .* by the network's output"):
        allocate(graph, np.empty(0), Budget("percent", 0.3))


def test_no_budget(graph: ChannelGraph, scores: Floats) -> None:
    with pytest.raises(UserError, match=r"No budget is set.*flops, fps, ms, params, percent, size"):
        allocate(graph, scores, [])


def test_scores_that_are_not_finite(graph: ChannelGraph) -> None:
    with pytest.raises(UserError, match="finite"):
        allocate(graph, np.full(graph.units, np.nan), Budget("percent", 0.3))


def shares(plan: Plan) -> tuple[float, float, float]:
    """Parameters, FLOPs and units that stay, as shares."""
    before, after = plan.before, plan.after
    return after.parameters / before.parameters, after.flops / before.flops, plan.units_kept / plan.units


def test_of_several_budgets_all_are_met(graph: ChannelGraph, scores: Floats) -> None:
    budgets = [Budget("params", 0.5), Budget("flops", 0.5), Budget("percent", 0.2)]
    plan = allocate(graph, scores, budgets)
    parameters, flops, units = shares(plan)
    assert parameters <= 0.5 and flops <= 0.5 and units <= 0.8
    alone = [allocate(graph, scores, budget) for budget in budgets]
    for number, layer in enumerate(plan.layers):
        kept = [len(other.layers[number].kept) for other in alone]
        assert len(layer.kept) == min(kept), "in every space the smallest of their counts"
    assert allocate(graph, scores, [budgets[0]]) == alone[0]
    assert allocate(graph, scores, [Budget("params", 0.9), Budget("flops", 0.3)]).budget == Budget("flops", 0.3)


def test_scores_per_saving_remove_fewer_units_for_the_same_flops(graph: ChannelGraph, scores: Floats) -> None:
    plain = allocate(graph, scores, Budget("flops", 0.6))
    cheap = allocate(graph, scores, Budget("flops", 0.6), per_saving=True)
    assert cheap.removed_share < plain.removed_share
    divided = scores_per_saving(scores, COSTS["flops"].of(graph, None))
    assert cheap == allocate(graph, divided, Budget("flops", 0.6))
    # Every unit counts one for a budget of units, so nothing changes.
    percent = Budget("percent", 0.3)
    assert allocate(graph, scores, percent, per_saving=True) == allocate(graph, scores, percent)


@pytest.mark.parametrize("cost", ["percent", "params", "flops"])
def test_shares_speak_of_the_reference(graph: ChannelGraph, scores: Floats, cost: str) -> None:
    """A budget of half of a network twice as large is met by the whole network; what it leaves of 1.25 is less."""
    budget = Budget(cost, 0.5)
    own = costs_of(graph, [budget])
    assert allocate(graph, scores, budget, reference={cost: 2 * own[cost]}).removed_share == 0
    plan = allocate(graph, scores, budget, Guards(round_to=1), reference={cost: 1.25 * own[cost]})
    kept = COSTS[cost].of(graph, None).price(plan.keep(graph)) / own[cost]
    assert kept == pytest.approx(0.625, abs=0.01)
    absolute = Budget("params", 9e5, share=False)
    assert allocate(graph, scores, absolute, reference={"params": 1e9}) == allocate(graph, scores, absolute)


def grouped(middle: int) -> Chain:
    """conv64 -> conv(64 -> middle, 8 groups): a unit is 8 channels of one and middle / 8 of the other."""

    def through(x: Tensor, a: nn.Module, g: nn.Module) -> Tensor:
        return g(a(x))

    return Chain(through, out=middle, a=ConvNorm(8, 64, 3), g=ConvNorm(64, middle, 3, groups=8))


@pytest.mark.parametrize(
    ("middle", "guards", "kept"),
    [
        (16, Guards(min_share=0, round_to=8), {"layers.a.conv": 32, "layers.g.conv": 8}),
        (16, Guards(min_share=0, round_to=4), {"layers.a.conv": 16, "layers.g.conv": 4}),
        (16, Guards(min_share=0, round_to=16), {"layers.a.conv": 64, "layers.g.conv": 16}),
        (16, Guards(min_share=0, round_to=1, min_count=5), {"layers.a.conv": 24, "layers.g.conv": 6}),
        (16, Guards(min_share=0.3, round_to=1), {"layers.a.conv": 24, "layers.g.conv": 6}),
        (64, Guards(min_share=0, round_to=8), {"layers.a.conv": 8, "layers.g.conv": 8}),
        (8, Guards(min_share=0, round_to=2, min_count=3), {"layers.a.conv": 32, "layers.g.conv": 4}),
    ],
)
def test_guards_hold_for_every_layer_of_a_space(middle: int, guards: Guards, kept: dict[str, int]) -> None:
    """The narrowest plan that the guards allow: the grouped layer kept 6 of 16 channels with a rounding to 8."""
    graph = trace(grouped(middle))
    plan = allocate(graph, np.ones(graph.units), Budget("flops", 0.0001), guards, strict=False)
    assert {layer.name: len(layer.kept) for layer in plan.layers if layer.name != "stem.conv"} == kept


def test_a_layer_of_two_spaces_is_rounded_as_a_whole() -> None:
    """Channels 0-7 of one layer are tied to one producer and 8-31 to another: each keeps a multiple of 4."""

    def middle(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        return torch.cat([a(x), b(x)], 1) + c(x)

    graph = trace(Chain(middle, out=32, a=ConvNorm(8, 8), b=ConvNorm(8, 24), c=ConvNorm(8, 32)))
    plan = allocate(
        graph, np.random.default_rng(1).random(graph.units), Budget("percent", 0.4), Guards(round_to=4), strict=False
    )
    assert all(len(layer.kept) % 4 == 0 for layer in plan.layers)
    assert plan.removed_share > 0.2


def test_frozen_channels_count_once_in_a_rounded_layer() -> None:
    """Of the 14 channels of c, 6 are tied to a frozen slice: 2 + 6 or 10 - 2 + 6 stay, never a bare multiple."""

    def middle(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        return torch.cat([a(x), b(x).softmax(1)], 1) + c(x)

    graph = trace(Chain(middle, out=22, a=nn.Conv2d(8, 16, 1), b=nn.Conv2d(8, 6, 1), c=nn.Conv2d(8, 22, 1)))
    (space,) = (space for space in graph.spaces if "layers.c" in space.layers)
    assert dict(zip(space.layers, space.frozen, strict=True)) == {"layers.a": 0, "layers.c": 6}
    plan = allocate(graph, np.ones(graph.units), Budget("flops", 0.0001), Guards(0, round_to=8), strict=False)
    # Not both can be multiples of 8, so the first layer is.
    assert {layer.name: len(layer.kept) for layer in plan.layers if layer.name != "stem.conv"} == {
        "layers.a": 8,
        "layers.c": 14,
    }
