"""A descent to one budget serves larger ones: which round they continue from, and what they end with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_rounds import Told

from law_subjects import Subject, enliven
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.files import read_json
from secateur.pruning.allocation import costs_of
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.rounds import (
    Rounds,
    State,
    kept_in,
    number_of_rounds,
    rounded_rounds,
    shared_round,
    state_file,
)
from secateur.pruning.settings import Guards, PruneSettings, RoundSettings

REFERENCE = {"flops": 1e9, "percent": 1000.0}


@pytest.mark.parametrize("smaller", [0.7, 0.5, 0.3, 0.1])
@pytest.mark.parametrize("share", [0.95, 0.8, 0.75, 0.6, 0.5])
def test_as_many_rounds_of_nearly_the_same_targets(share: float, smaller: float) -> None:
    auto, budget, other = RoundSettings(), Budget("flops", share), Budget("flops", smaller)
    if share <= smaller:
        return
    number = shared_round(auto, budget, other, REFERENCE)
    own, all_rounds = (number_of_rounds(auto, [one], REFERENCE) for one in (budget, other))
    assert number == min(own - rounded_rounds(own), all_rounds - rounded_rounds(all_rounds))
    # What is left to do begins above the next target, within two per cent of the course of its own.
    there, alone = smaller ** (number / all_rounds), share ** (number / own)
    assert there > share ** ((number + 1) / own)
    assert abs(there / alone - 1) < 0.02


def test_amounts_and_removed_shares_are_shares_too() -> None:
    auto = RoundSettings()
    by_share = shared_round(auto, Budget("flops", 0.6), Budget("flops", 0.4), REFERENCE)
    amounts = Budget("flops", 6e8, share=False), Budget("flops", 4e8, share=False)
    assert shared_round(auto, *amounts, REFERENCE) == by_share == 7
    assert shared_round(auto, Budget("percent", 0.4), Budget("percent", 0.6), REFERENCE) == by_share


@pytest.mark.parametrize("rounds", ["1", "2", "4"])
def test_a_fixed_number_of_rounds_shares_nothing_that_would_be_too_small(rounds: str) -> None:
    fixed, budget, other = RoundSettings(rounds), Budget("flops", 0.9), Budget("flops", 0.2)
    assert shared_round(fixed, budget, other, REFERENCE) == 0


def test_the_smallest_budget_is_a_course_of_its_own_and_the_others_meet_theirs(tiny_cfg: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(tiny_cfg))
    enliven(detector)
    subject = Subject(detector.eval(), trace(detector), 64)
    large, small = Budget("flops", 0.7), Budget("flops", 0.4)
    reference = costs_of(subject.graph, [small], subject.size)

    def course(budget: Budget) -> Rounds[Detector]:
        settings = PruneSettings((budget,), guards=Guards(round_to=1), image_size=subject.size)
        return Rounds(subject.detector, Told(subject).sources, settings, reference)

    alone, _ = course(small).plan()
    number = shared_round(RoundSettings(), large, small, reference)
    with kept_in(tmp_path, (number,)) as (state, save):
        assert state is None
        passing, _ = course(small).plan(save=save)
    assert passing.to_dict() == alone.to_dict()
    state = State.from_dict(read_json(state_file(tmp_path, number)))
    assert state.round == number > 0
    assert {file.name for file in tmp_path.iterdir()} == {"rounds.json", f"rounds-{number}.json"}
    branched, _ = course(large).plan(state)
    direct, _ = course(large).plan()
    dense = subject.graph.price(image_size=64).flops
    # The layers of this network are too few for every budget to be met to a per cent.
    assert 0.63 * dense < branched.after.flops <= 0.7 * dense
    assert branched.after.flops == pytest.approx(direct.after.flops, rel=0.08)
    assert np.mean(branched.keep(subject.graph) == direct.keep(subject.graph)) > 0.85
