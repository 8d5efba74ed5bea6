"""Rounds on a detector with images: with labels, without, interrupted, and images of another world."""

from __future__ import annotations

import dataclasses
import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from law_subjects import enliven
from secateur.checkpoints.channels import check_criterion, prune
from secateur.data.config import load_data_config, unlabelled_images
from secateur.errors import UserError
from secateur.families import evidence as evidence_module
from secateur.families.context import Context
from secateur.families.evidence import FamilyEvidence, Labelled
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning import rounds, surgery
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.plan import Plan
from secateur.pruning.prune import Kept, in_rounds
from secateur.pruning.rounds import Rounds
from secateur.pruning.settings import CliffSettings, Guards, PruneSettings, RepairSettings, RoundSettings, ScoreSettings
from secateur.pruning.statistics import collect


@pytest.fixture(scope="module")
def whole(tiny_weights: Path) -> Checkpoint:
    """A detector that sees something everywhere."""
    checkpoint = load_checkpoint(tiny_weights)
    detector = checkpoint.build()
    assert isinstance(detector, Detector)
    enliven(detector)
    with torch.no_grad():
        for last in detector.head.m:
            last.bias.view(detector.na, -1)[:, 4] += 3  # type: ignore[union-attr, operator]
    return Checkpoint.of(detector, like=checkpoint)


@pytest.fixture
def context(tiny_data: Path) -> Context:
    return Context(64, data=load_data_config(tiny_data), batch_size=8, workers=0)


def settings(**changes: Any) -> ChannelSettings:
    return ChannelSettings(
        budget=budget_options()(flops="0.6"),
        score=ScoreSettings(criterion="fisher", statistics_images=16),
        rounds=RoundSettings(**changes),
        guards=Guards(round_to=1),
        repair=RepairSettings(correction_images=16),
        cliff=CliffSettings(cliff=False),
    )


@pytest.fixture(scope="module")
def calm(whole: Checkpoint, tiny_data: Path) -> Plan:
    """What undisturbed rounds decide with labels."""
    context = Context(64, data=load_data_config(tiny_data), batch_size=8, workers=0)
    return prune(whole, context, settings())[1].plan


@pytest.mark.parametrize("labels", [True, False])
def test_rounds_meet_the_budget(whole: Checkpoint, context: Context, tiny_data: Path, labels: bool, calm: Plan) -> None:
    if not labels:
        context = dataclasses.replace(context, data=None, unlabelled=unlabelled_images(tiny_data, whole.names))
    curves: list[Any] = []
    small, pruned = prune(whole, context, settings(), Kept(decided=lambda plan, curve: curves.append(curve)))
    plan = pruned.plan
    assert curves == [None]
    assert 0.55 <= plan.after.flops / plan.before.flops <= 0.6
    assert sum(p.numel() for p in small.build().parameters()) == plan.after.parameters
    again = calm if labels else prune(whole, context, settings())[1].plan
    assert again == plan
    assert prune(whole, context, settings(rounds="1"))[1].plan != plan


def test_killed_rounds_go_on(
    whole: Checkpoint, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm: Plan
) -> None:
    original, done = Rounds.after, []

    def after(self: Any, state: Any, count: int) -> Any:
        done.append(state.round)
        if len(done) == 3:
            raise KeyboardInterrupt
        return original(self, state, count)

    monkeypatch.setattr(Rounds, "after", after)
    with pytest.raises(KeyboardInterrupt):
        prune(whole, context, settings(), Kept(tmp_path))
    assert (tmp_path / rounds.STATE).is_file()
    _, gone_on = prune(whole, context, settings(), Kept(tmp_path))
    assert gone_on.plan == calm
    assert done == [0, 1, 2, *range(2, 10)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"order": [0.0], "losses": [0.0], "savings": [1.0]},
            r"stored rounds are for 1 units, but the network has \d+",
        ),
        ({"order": [0.0]}, "its lists have different lengths"),
        ({"plan": None}, "not a valid state of pruning rounds"),
    ],
)
def test_a_state_of_other_rounds_is_refused_by_its_name(
    whole: Checkpoint, context: Context, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    prune(whole, context, settings(rounds="2"), Kept(tmp_path))
    file = tmp_path / rounds.STATE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(
        UserError, match=rf"Cannot resume from .*rounds\.json: .*{words}.* Remove the file to start again"
    ):
        prune(whole, context, settings(rounds="2"), Kept(tmp_path))


def test_what_a_round_has_made_is_gone_before_the_next(
    whole: Checkpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large detectors two networks and their traces do not fit beside each other."""
    made: list[weakref.ref[Any]] = []
    left: list[int] = []
    original = surgery.cut

    def cut(network: Any, *rest: Any) -> Any:
        left.append(sum(one() is not None for one in made))
        smaller = original(network, *rest)
        made.append(weakref.ref(smaller))
        return smaller

    returned: list[int] = []
    monkeypatch.setattr("secateur.pruning.rounds.cut", cut)
    monkeypatch.setattr(rounds, "return_memory", lambda: returned.append(len(made)))
    gc.disable()
    try:
        prune(whole, context, settings(rounds="4"))
    finally:
        gc.enable()
    assert left == [0] * 4
    assert set(returned) == {1, 2, 3, 4}


def test_rounds_look_at_other_pictures_each_time(whole: Checkpoint, context: Context) -> None:
    detector = whole.build()
    assert isinstance(detector, Detector)
    evidence = FamilyEvidence(context, detector)
    draws = [next(iter(evidence.scored(detector, 8, number)[0])).indices for number in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    shown = [torch.cat(list(evidence.images(8, number))) for number in (0, 1, 0)]
    assert len(shown[0]) == 8 and torch.equal(shown[0], shown[2]) and not torch.equal(shown[0], shown[1])


def test_places_of_small_objects_count_more(whole: Checkpoint, context: Context) -> None:
    """Sizes are those in the original image: where that is twice as large, an object is too."""
    evidence = FamilyEvidence(context, whole.build())
    images, row = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), [1, 0, 0.5, 0.25, 0.25, 0.25]  # 16 x 16 px in image 1
    for scale, expected in ((1.0, True), (0.5, False), (2.0, True)):
        batch = Labelled(images, torch.tensor([row]), [((scale, scale), (0, 0))] * 2)
        weights = evidence.places(batch, (0, 20))
        assert weights.shape == (2, 1, 64, 64) and bool((weights[0] == 1).all())
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[8:24, 24:40] = expected
        assert torch.equal(weights[1, 0] > 1, inside)
    with pytest.raises(UserError, match="needs labels with boxes"):
        evidence.places(Labelled(images, torch.tensor([0, 1])), (0, 20))


def test_protecting_objects_changes_what_goes(whole: Checkpoint, context: Context) -> None:
    plans = []
    for protect in ("", "16"):
        score = ScoreSettings(protect=protect, statistics_images=16)
        how = dataclasses.replace(settings(rounds="1"), score=score)
        plans.append(prune(whole, context, how)[1].plan)
    assert plans[0].layers != plans[1].layers
    assert plans[0].after.flops == pytest.approx(plans[1].after.flops, rel=0.05)


@pytest.mark.parametrize("text", ["tiny", "-3", "0", "9000", "3.5"])
def test_what_cannot_be_protected(text: str) -> None:
    with pytest.raises(UserError, match=f"--protect {text} is invalid"):
        ScoreSettings(protect=text)


def test_protection_needs_gradients(whole: Checkpoint, context: Context) -> None:
    with pytest.raises(UserError, match=r"--protect .* the criterion l2 reads only weights"):
        check_criterion(whole, context, ScoreSettings("l2", protect="24px"))


def test_weights_alone_are_looked_at_once() -> None:
    def again(criterion: str, rounds: str = "auto") -> bool:
        budget = Budget("flops", 0.5)
        return in_rounds(PruneSettings((budget,), ScoreSettings(criterion=criterion), RoundSettings(rounds)), {})

    assert again("fisher") and not again("l2") and not again("fisher", "1") and again("l2", "3")


@pytest.fixture
def black(tmp_path: Path) -> Iterator[Path]:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((64, 64, 3), np.uint8))
    return tmp_path  # type: ignore[return-value]


def test_pictures_on_which_nothing_is_seen_are_refused(tiny_weights: Path, black: Path) -> None:
    blind = load_checkpoint(tiny_weights)
    context = Context(64, batch_size=8, workers=0, unlabelled=unlabelled_images(black, blind.names))
    with pytest.raises(UserError, match=r"finds nothing \(no box above a confidence of 0.25\) on 3 images"):
        prune(blind, context, settings())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_scores_in_bf16_rank_as_those_in_full_precision(
    whole: Checkpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for precision in ("no", "bf16"):
        monkeypatch.setattr(evidence_module, "choose_precision", lambda amp, kind, chosen=precision: chosen)
        detector = whole.build()
        batches, loss = FamilyEvidence(context, detector).scored(detector, 16, 0)
        statistics = collect(detector, trace(detector), batches, loss, limit=16)
        assert statistics.fisher is not None
        found.append(np.log(statistics.fisher + 1e-20))
    assert not np.array_equal(*found) and np.corrcoef(*found)[0, 1] > 0.99
