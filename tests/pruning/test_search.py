"""The search stays within budget and guards, is a function of its seed, goes on after a kill, and always ends."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from networks import Chain
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.plan import Plan
from secateur.pruning.search import Candidate, SearchResult, search
from secateur.pruning.settings import Guards, SearchSettings


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(Detector(Topology.from_yaml("yolov5n", nc=3)))


@pytest.fixture(scope="module")
def scores(graph: ChannelGraph) -> Floats:
    return np.random.default_rng(0).lognormal(size=graph.units)


FINE = Guards(min_share=0.1, round_to=1)


def wide_where_it_counts(plan: Plan) -> float:
    """A fitness with a slope for a search to climb: some layers want to be wide, all others narrow."""
    return sum(
        len(layer.kept) / layer.total * (1 if number % 3 == 0 else -1) for number, layer in enumerate(plan.layers)
    )


def run(graph: ChannelGraph, scores: Floats, **changes: Any) -> SearchResult:
    values = {name: changes.pop(name) for name in ("candidates", "tolerance") if name in changes}
    options: dict[str, Any] = {
        "budgets": [Budget("flops", 0.5)], "guards": FINE, "evaluate_candidate": wide_where_it_counts,
        "settings": SearchSettings(**{"candidates": 24, "tolerance": 0.02} | values), "seed": 0, "image_size": 320,
    }  # fmt: skip
    return search(graph, scores, **options | changes)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize(
    "budgets",
    [[Budget("flops", 0.5)], [Budget("params", 0.3)], [Budget("percent", 0.3)], [Budget("flops", 1.2e8, share=False)]],
)
def test_every_candidate_lands_in_the_window(
    graph: ChannelGraph, scores: Floats, budgets: list[Budget], round_to: int
) -> None:
    plans = []

    def evaluate(plan: Plan) -> float:
        plans.append(plan)
        return wide_where_it_counts(plan)

    result = run(
        graph, scores, budgets=budgets, guards=Guards(min_share=0.1, round_to=round_to), evaluate_candidate=evaluate
    )
    assert len(plans) == len(result.history) == 24
    (budget,) = budgets
    for plan in plans:
        cost = {
            "flops": plan.after.flops / plan.before.flops,
            "params": plan.after.parameters / plan.before.parameters,
            "percent": plan.removed_share,
        }[budget.cost]
        target = budget.amount if budget.share else budget.amount / plan.before.flops
        assert abs(cost - target) <= 0.0201
        assert plan.after == graph.price(plan.keep(graph), 320)


def test_of_several_budgets_all_are_met(graph: ChannelGraph, scores: Floats) -> None:
    result = run(graph, scores, budgets=[Budget("params", 0.3), Budget("flops", 0.33)], tolerance=0.01)
    shares = [(plan.after.parameters / plan.before.parameters, plan.after.flops / plan.before.flops)
              for plan in [result.plan]]  # fmt: skip
    for parameters, flops in shares:
        assert parameters <= 0.31 and flops <= 0.34
        assert parameters >= 0.29 or flops >= 0.32


def test_same_seed_same_search_other_seed_another(graph: ChannelGraph, scores: Floats) -> None:
    first, again, other = run(graph, scores), run(graph, scores), run(graph, scores, seed=1)
    assert first == again
    assert first.history[0] == other.history[0]  # the global threshold
    assert {candidate.kept for candidate in first.history[1:]}.isdisjoint(c.kept for c in other.history[1:])


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("before", [0, 1, 9, 13, 20, 23])
def test_killed_and_resumed_it_ends_with_the_same_plan(graph: ChannelGraph, scores: Floats, before: int) -> None:
    guards = Guards(min_share=0.1, round_to=16)  # coarse, so that some draws are dropped
    undisturbed = run(graph, scores, guards=guards, tolerance=0.002)
    assert undisturbed.dropped > 0
    saved: list[str] = []
    calls: list[Plan] = []

    def evaluate(plan: Plan) -> float:
        if len(calls) == before and len(saved) == before:
            calls.append(plan)
            raise Killed
        calls.append(plan)
        return wide_where_it_counts(plan)

    def save(state: dict[str, Any]) -> None:
        saved.append(json.dumps(state))

    with pytest.raises(Killed):
        run(graph, scores, guards=guards, tolerance=0.002, evaluate_candidate=evaluate, save=save)
    state = json.loads(saved[-1]) if saved else None
    resumed = run(graph, scores, guards=guards, tolerance=0.002, evaluate_candidate=evaluate, save=save, state=state)
    assert resumed == undisturbed
    assert len(calls) == 24 + 1  # only the one that was under way is evaluated again


@pytest.mark.parametrize("changes", [{"seed": 3}, {"budgets": [Budget("flops", 0.4)]}, {"candidates": 12}])
def test_the_state_of_another_search_is_not_used(graph: ChannelGraph, scores: Floats, changes: dict[str, Any]) -> None:
    states: list[dict[str, Any]] = []
    run(graph, scores, save=states.append)
    assert run(graph, scores, state=states[11], **changes) == run(graph, scores, **changes)


def test_it_is_never_worse_than_the_global_threshold(graph: ChannelGraph, scores: Floats) -> None:
    threshold = allocate(graph, scores, Budget("flops", 0.5), FINE, image_size=320)

    def likes_the_threshold(plan: Plan) -> float:
        return float((plan.keep(graph) == threshold.keep(graph)).mean())

    result = run(graph, scores, evaluate_candidate=likes_the_threshold)
    assert result.history[0] == Candidate("threshold", result.history[0].kept, result.history[0].share, 1.0)
    assert (result.plan.keep(graph) == threshold.keep(graph)).all()
    assert (run(graph, scores, evaluate_candidate=lambda plan: 0.3).plan.keep(graph) == threshold.keep(graph)).all()
    # A figure that is none never wins.
    never = run(graph, scores, evaluate_candidate=lambda plan: -1.0 if likes_the_threshold(plan) == 1 else float("nan"))
    assert never.plan.layers == threshold.layers


def test_evolution_climbs_where_chance_does_not(graph: ChannelGraph, scores: Floats) -> None:
    history = run(graph, scores, candidates=60).history
    best = {origin: max(c.fitness for c in history if c.origin == origin) for origin in ("random", "evolved")}
    assert best["evolved"] > best["random"] + 1
    assert [c.origin for c in history] == ["threshold"] + 30 * ["random"] + 29 * ["evolved"]


def test_guards_hold_and_the_best_units_stay(graph: ChannelGraph, scores: Floats) -> None:
    guards = Guards(min_share=0.3, min_count=9, round_to=4, exclude=("model.2.*",))
    plans: list[Plan] = []
    run(graph, scores, guards=guards, budgets=[Budget("flops", 0.6)],
        evaluate_candidate=lambda plan: plans.append(plan) or wide_where_it_counts(plan))  # fmt: skip
    assert len({tuple(len(layer.kept) for layer in plan.layers) for plan in plans}) == 24
    for plan in plans:
        keep = plan.keep(graph)
        for space in graph.spaces:
            kept, gone = space.units[keep[space.units]], space.units[~keep[space.units]]
            if space.matches(guards.exclude):
                assert not len(gone)
            if not len(gone):
                continue
            channels = space.frozen[0] + len(kept) * space.widths[0]
            assert len(kept) >= 0.3 * len(space.units) and channels >= 9 and channels % 4 == 0
            assert scores[kept].min() >= scores[gone].max()


@pytest.mark.parametrize(
    "changes",
    [
        {"budgets": [Budget("flops", 0.2)], "guards": Guards(min_share=0.8, round_to=1)},
        {"budgets": [Budget("params", 0.4)], "guards": Guards(round_to=64), "tolerance": 1e-6},
        {"budgets": [Budget("flops", 0.5)], "guards": Guards(exclude=("model.*",))},
    ],
)
def test_an_impossible_window_ends_with_a_sentence(
    graph: ChannelGraph, scores: Floats, changes: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"nearest has [\d,]+ (parameters|FLOPs) \(.* of the dense model\)"):
        run(graph, scores, evaluate_candidate=lambda plan: pytest.fail("nothing to evaluate"), **changes)


def test_few_allocations_are_evaluated_once_each_and_the_search_ends() -> None:
    graph = trace(Chain(lambda x: x))  # one space of 8 units
    seen: list[int] = []

    def evaluate(plan: Plan) -> float:
        seen.append(plan.units_kept)
        return -abs(plan.units_kept - 5)

    guards = Guards(min_share=0, round_to=1)
    result = run(graph, np.arange(8.0), budgets=[Budget("percent", 0.5)], guards=guards, tolerance=0.2,
                 candidates=40, evaluate_candidate=evaluate, image_size=64)  # fmt: skip
    assert len(seen) == len(set(seen)) < 8
    assert any("ended before 40" in note for note in result.plan.notes)


def test_a_network_within_the_budget_is_not_searched(graph: ChannelGraph, scores: Floats) -> None:
    result = run(
        graph, scores, budgets=[Budget("flops", 1e15, share=False)], evaluate_candidate=lambda plan: pytest.fail("why")
    )
    assert result.plan.removed_share == 0 and result.history == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidates": 0}, "--candidates"),
        ({"tolerance": 0.0}, "--tolerance"),
        ({"budgets": []}, "needs a budget"),
        ({"seed": -1}, "--seed"),
        ({"guards": Guards(exclude=("nothing",))}, "--exclude nothing"),
    ],
)
def test_bad_options(graph: ChannelGraph, scores: Floats, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        run(graph, scores, **changes)
