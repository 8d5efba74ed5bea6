"""The search on a detector and its data: what a candidate is worth, and its state on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secateur.checkpoints import channels
from secateur.checkpoints.channels import prune
from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evidence import FamilyEvidence
from secateur.families.loading import load_checkpoint
from secateur.pruning.graph import trace
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.plan import Plan
from secateur.pruning.prune import Kept
from secateur.pruning.search import Fitness
from secateur.pruning.settings import CliffSettings, Guards, RepairSettings, ScoreSettings, SearchSettings
from secateur.pruning.surgery import cut
from secateur.scores import Scores


def settings(round_to: int = 1, **changes: Any) -> ChannelSettings:
    return ChannelSettings(
        budget_options()(flops="0.5"),
        ScoreSettings(criterion="l2"),
        guards=Guards(round_to=round_to, **changes),
        repair=RepairSettings(correction_images=16),
        cliff=CliffSettings(cliff=False),
        search=SearchSettings(search="eagleeye", candidates=6, search_images=8),
    )


def context(data: Path) -> Context:
    return Context(64, data=load_data_config(data), batch_size=8, workers=0)


def found(weights: Path, data: Path, folder: Path | None, **guards: Any) -> Plan:
    return prune(load_checkpoint(weights), context(data), settings(**guards), Kept(folder))[1].plan


def test_killed_and_resumed_the_same_plan(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = found(tiny_weights, tiny_data, None)
    assert undisturbed.after.flops <= 0.52 * undisturbed.before.flops
    assert not list(tmp_path.iterdir())
    original, calls = Fitness.__call__, []

    def dying(self: Fitness, plan: Plan) -> float:
        calls.append(plan)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, plan)

    monkeypatch.setattr(Fitness, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        found(tiny_weights, tiny_data, tmp_path)
    assert len(json.loads((tmp_path / "search.json").read_text())["candidates"]) == 3
    assert found(tiny_weights, tiny_data, tmp_path) == undisturbed
    assert len(calls) == 7


def test_a_damaged_state_is_refused_by_its_name(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fitness, "__call__", lambda self, plan: 0.5)
    found(tiny_weights, tiny_data, tmp_path)
    file = tmp_path / "search.json"
    state = json.loads(file.read_text())
    del state["candidates"][0]["kept"]
    file.write_text(json.dumps(state))
    with pytest.raises(
        UserError, match=r"search\.json: This is not a valid search state \(KeyError: 'kept'\)\. Remove the file"
    ):
        found(tiny_weights, tiny_data, tmp_path)


def test_a_candidate_is_repaired_and_ranked_on_training_images(
    tiny_weights: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def spy(split: Any, settings: Any, limit: Any) -> Any:
        seen.update(files=split.index.files, limit=limit)
        return lambda detector: None

    monkeypatch.setattr(channels, "evaluator", spy)
    monkeypatch.setattr(Fitness, "__call__", lambda self, plan: 0.5)
    found(tiny_weights, tiny_data, None)
    assert all("train" in str(file) for file in seen["files"]) and seen["limit"] == 8


def test_the_norms_of_a_candidate_are_estimated_anew(tiny_weights: Path, tiny_data: Path) -> None:
    seen: list[Any] = []

    def evaluate(detector: Any) -> Scores:
        seen.append(detector)
        return Scores("figure", {"figure": 0.5})

    detector = load_checkpoint(tiny_weights).build()
    graph, evidence = trace(detector), FamilyEvidence(context(tiny_data), detector)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    keep = np.ones(graph.units, dtype=bool)
    keep[graph.spaces[0].units[::2]] = False
    plan = Plan.of(graph, keep, 64)
    for correction_images, moved in ((16, True), (0, False)):
        repair = RepairSettings(correction_images=correction_images, absorb=False)
        fitness = Fitness(detector, graph, evidence, repair, evaluate)
        assert len(fitness.images) == correction_images // 8
        assert fitness(plan) == 0.5
        means = {name: value for name, value in seen[-1].state_dict().items() if "running_mean" in name}
        plain = cut(detector, graph, plan).state_dict()
        assert any((plain[name] != value.cpu()).any() for name, value in means.items()) == moved
    assert all((before[name] == value).all() for name, value in detector.state_dict().items())


def test_an_impossible_budget_is_one_sentence(tiny_weights: Path, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nearest has"):
        found(tiny_weights, tiny_data, tmp_path, min_share=0.9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes", [{"search": "beauty"}, {"candidates": 0}, {"search_images": -1}, {"tolerance": 0.0}]
)
def test_bad_settings_are_refused_when_made(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"--search|--candidates|--tolerance"):
        SearchSettings(**changes)
