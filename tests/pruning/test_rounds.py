"""Rounds: the budget is met, what went early comes back where rounding wants it, a stopped course goes on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from law_subjects import Subject, enliven, subject_named
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.allocation import costs_of
from secateur.pruning.budget import Budget
from secateur.pruning.depth import candidates
from secateur.pruning.depth.selection import carve
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.plan import Plan
from secateur.pruning.repair import Shorter, correct_, counterparts
from secateur.pruning.rounds import Rounds, Sources, State, number_of_rounds
from secateur.pruning.settings import Guards, PruneSettings, RoundSettings, ScoreSettings
from secateur.pruning.statistics import Statistics


class Told:
    """Scores that are given: a number a unit of the whole network, and one a block."""

    def __init__(self, subject: Subject, blocks: float = 1e9) -> None:
        self.subject, self.blocks = subject, blocks
        self.asked: list[tuple[int, int, tuple[str, ...]]] = []

    def gather(self, network: Any, graph: ChannelGraph, blocks: Sequence[str], number: int) -> Statistics:
        self.asked.append((number, graph.units, tuple(blocks)))
        scores = np.random.default_rng(number).uniform(0.1, 1, graph.units)
        return Statistics({}, scores, scores, 1, dict.fromkeys(blocks, self.blocks))

    def repair(self, network: Any, plan: Plan, shorter: Shorter, number: int) -> None:
        whole = self.subject.detector
        correct_(network, whole, counterparts(whole, plan, shorter), [self.subject.images()])

    @cached_property
    def sources(self) -> Sources[Any]:
        return Sources(trace, self.gather, self.repair)


@pytest.fixture(scope="module")
def fine() -> Subject:
    """One whose budgets are met to a percent."""
    return subject_named("yolov5n")


@pytest.fixture(scope="module")
def subject(tiny_cfg: Path) -> Subject:
    """A third of the layers of that one: every round traces its network anew."""
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(tiny_cfg))
    enliven(detector)
    return Subject(detector.eval(), trace(detector), 64)


def course(subject: Subject, told: Told, *budgets: Budget, guards: Guards = Guards(round_to=1), **changes: Any) -> Any:  # noqa: B008
    reference = costs_of(subject.graph, budgets, subject.size)
    settings = PruneSettings(
        budgets,
        ScoreSettings(criterion="fisher"),
        RoundSettings(**{"rounds": "3", **changes}),  # type: ignore[arg-type]
        guards,
        image_size=subject.size,
    )
    return Rounds(subject.detector, told.sources, settings, reference)


@pytest.mark.parametrize("cost", ["flops", "params"])
def test_the_budget_is_met_after_so_many_rounds(fine: Subject, cost: str) -> None:
    told = Told(fine)
    before = copy.deepcopy(fine.detector.state_dict())
    plan, order = course(fine, told, Budget(cost, 0.8), rounds="auto").plan()
    share = plan.after.flops / plan.before.flops if cost == "flops" else plan.after.parameters / plan.before.parameters
    assert 0.79 <= share <= 0.8
    assert [number for number, _, _ in told.asked] == list(range(5))  # 0.95^5 is just under 0.8
    sizes = [units for _, units, _ in told.asked]
    assert sizes[0] == fine.graph.units and sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    assert order.shape == (fine.graph.units,)
    kept = plan.keep(fine.graph)
    assert order[~kept].mean() < order[kept].mean()
    assert all(torch.equal(before[name], tensor) for name, tensor in fine.detector.state_dict().items())


def test_a_stopped_course_goes_on_to_the_same_plan(subject: Subject) -> None:
    states: list[dict[str, Any]] = []
    whole = course(subject, Told(subject), Budget("flops", 0.8), rounds="4")
    plan, _ = whole.plan(save=lambda state, count: states.append(state.to_dict()))
    assert len(states) == 4
    told = Told(subject)
    again, _ = course(subject, told, Budget("flops", 0.8), rounds="4").plan(State.from_dict(states[1]))
    assert again.to_dict() == plan.to_dict()
    assert [number for number, _, _ in told.asked] == [2, 3]


def test_widths_are_rounded_at_the_end_alone(fine: Subject) -> None:
    told = Told(fine)
    plan, _ = course(fine, told, Budget("flops", 0.6), guards=Guards(round_to=4)).plan()
    assert all(len(layer.kept) % 4 == 0 or len(layer.kept) == layer.total for layer in plan.layers)
    assert any(units % 4 for _, units, _ in told.asked)
    assert sum(p.numel() for p in carve(fine.detector, plan).parameters()) == plan.after.parameters


def test_a_worthless_block_goes_and_a_dear_one_stays(subject: Subject) -> None:
    cheap, dear = Told(subject, blocks=0.0), Told(subject, blocks=1e9)
    plan, _ = course(subject, cheap, Budget("flops", 0.6)).plan()
    assert plan.removed_blocks
    small = carve(subject.detector, plan)
    assert sum(p.numel() for p in small.parameters()) == plan.after.parameters
    assert 0.58 <= plan.after.flops / plan.before.flops <= 0.6
    assert not course(subject, dear, Budget("flops", 0.6)).plan()[0].removed_blocks
    assert not course(subject, cheap, Budget("flops", 0.6), depth=False).plan()[0].removed_blocks


def test_what_is_excluded_stays_whole(subject: Subject) -> None:
    told, chains = Told(subject, blocks=0.0), {block.chain for block in candidates(subject.detector)}
    first = sorted(chains)[0]
    guards = Guards(round_to=1, exclude=(f"{first}.*",))
    plan, _ = course(subject, told, Budget("flops", 0.7), guards=guards).plan()
    assert plan.removed_blocks and not any(name.startswith(first) for name in plan.removed_blocks)
    inside = [layer for layer in plan.layers if layer.name.startswith(f"{first}.")]
    assert inside and all(len(layer.kept) == layer.total for layer in inside)


def test_no_space_falls_under_its_share_of_the_whole_network(subject: Subject) -> None:
    plan, _ = course(subject, Told(subject), Budget("params", 0.3), guards=Guards(round_to=1, min_share=0.4)).plan()
    assert all(len(layer.kept) >= 0.4 * layer.total for layer in plan.layers)


def test_a_budget_out_of_reach_is_refused(subject: Subject) -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        course(subject, Told(subject), Budget("flops", 0.2), guards=Guards(round_to=1, min_share=0.9)).plan()


@pytest.mark.parametrize(
    ("budgets", "rounds"),
    [
        ([Budget("flops", 0.5)], 14),
        ([Budget("flops", 0.96)], 1),
        ([Budget("flops", 50.0, share=False)], 14),
        ([Budget("percent", 0.3)], 7),
        ([Budget("flops", 0.9), Budget("params", 0.5)], 14),
    ],
)
def test_number_of_rounds(budgets: list[Budget], rounds: int) -> None:
    reference = {"flops": 100.0, "params": 10.0, "percent": 10.0}
    assert number_of_rounds(RoundSettings(), budgets, reference) == rounds
    assert number_of_rounds(RoundSettings(rounds="3"), budgets, reference) == 3


@pytest.mark.parametrize("value", ["0", "many", "-1", "2.5"])
def test_bad_numbers_of_rounds(value: str) -> None:
    with pytest.raises(UserError, match="Set auto or"):
        RoundSettings(rounds=value)
