"""Healing: the cut detector comes nearer to the whole one without labels, and a killed healing ends the same."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch

from killing import killed_after
from law_subjects import enliven
from secateur.checkpoints import heal as healing
from secateur.checkpoints import pace
from secateur.checkpoints.channels import cut_channels
from secateur.checkpoints.heal import Pieces, batches_of, divided, heal, train_settings
from secateur.checkpoints.pace import NOTES
from secateur.data.config import unlabelled_images
from secateur.distillation.held_out import HeldOut
from secateur.distillation.settings import HealDefaults, HealSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.family import FAMILIES, family_of
from secateur.families.loading import load_checkpoint
from secateur.families.reading import Split
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.files import read_json
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.importance import score
from secateur.pruning.settings import Guards
from secateur.pruning.statistics import collect
from secateur.terminal import progress
from secateur.training.optimization import open_end
from secateur.training.results import HeldOutLoss
from secateur.training.session import Session
from secateur.training.settings import TrainSettings
from secateur.training.state import read_state, write_state

STEPS = HealSettings(heal_steps=12, heal_batch=8, heal_lr=0.003)
AUTO = dataclasses.replace(STEPS, heal_steps="auto")


class StepClock:
    """A clock on which a second is an optimizer step."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def counting(self, step: Callable[[Session], None]) -> Callable[[Session], None]:
        def counted(session: Session) -> None:
            step(session)
            self.now += 1

        return counted


@pytest.fixture
def context(tiny_data: Path) -> Context:
    images = unlabelled_images(tiny_data, {0: "disc", 1: "square", 2: "triangle"})
    return Context(64, batch_size=8, workers=0, unlabelled=images)


@pytest.fixture
def whole(tiny_weights: Path) -> Checkpoint:
    checkpoint = load_checkpoint(tiny_weights)
    detector = checkpoint.build()
    enliven(detector)  # fresh weights answer the same to every image
    return Checkpoint.of(detector, like=checkpoint)


@pytest.fixture
def small(whole: Checkpoint) -> Checkpoint:
    detector = whole.build()
    graph = trace(detector)
    plan = allocate(graph, score("l2", graph, collect(detector, graph)), Budget("flops", 0.5), Guards(round_to=1))
    return cut_channels(whole, graph, plan)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "PIECE", 4)


def distance(student: Checkpoint, teacher: Checkpoint, context: Context) -> float:
    _, held_out = divided(split_of(context), context.seed)
    network = student.build()
    imitate = FAMILIES["yolov5"].imitation(STEPS, network, student, teacher, TrainSettings(image_size=64))
    return HeldOut(teacher.build(), imitate.compare, healing.plain_images(held_out, student, context))(network).value


def split_of(context: Context) -> Split:
    return FAMILIES["yolov5"].split(context.unlabelled, "train", objects=False)


def test_the_answers_come_nearer_to_the_teachers(
    small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in whole.tensors.items()}
    result = heal(small, whole, context, STEPS, tmp_path)
    healed = load_checkpoint(result.best)
    assert distance(healed, whole, context) < 0.9 * distance(small, whole, context)
    assert result.metrics["held-out loss"] == pytest.approx(distance(healed, whole, context), rel=0.05)
    assert {name: t.shape for name, t in healed.tensors.items()} == {n: t.shape for n, t in small.tensors.items()}
    assert [stage.verb for stage in healed.history[-2:]] == ["prune", "heal"] and healed.plan == small.plan
    assert all(torch.equal(before[name], tensor) for name, tensor in whole.tensors.items())
    assert "val/loss" in (tmp_path / "results.csv").read_text().splitlines()[0]


def test_it_stops_when_the_held_out_loss_no_longer_falls(
    small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([6.0, 5.0, 3.0, *[4.0] * 30])  # the first is of what it starts from
    monkeypatch.setattr(HeldOut, "__call__", lambda self, student: HeldOutLoss(next(losses)))
    monkeypatch.setattr(healing, "PATIENCE", 3)
    result = heal(small, whole, context, dataclasses.replace(STEPS, heal_steps=80), tmp_path)
    pieces = (tmp_path / "results.csv").read_text().splitlines()[1:]
    assert len(pieces) == 2 + 3  # of 20
    assert result.metrics["held-out loss"] == 3.0


def test_a_healing_that_finds_nothing_better_keeps_what_it_started_from(
    small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ruinous = dataclasses.replace(STEPS, heal_lr=0.9)
    result = heal(small, whole, context, ruinous, tmp_path)
    kept = load_checkpoint(result.best)
    assert all(torch.equal(tensor, small.tensors[name]) for name, tensor in kept.tensors.items())
    assert "did not reduce the held-out loss" in caplog.text and result.best_epoch == -1
    assert result.metrics["held-out loss"] == pytest.approx(distance(small, whole, context))
    assert kept.history[-1].verb == "heal"
    again = heal(small, whole, context, ruinous, tmp_path)  # it has ended: the same comes back
    assert again.metrics == result.metrics and load_checkpoint(again.best).tensors.keys() == kept.tensors.keys()


def test_a_killed_healing_ends_as_the_undisturbed_one(
    small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path
) -> None:
    calm = load_checkpoint(heal(small, whole, context, STEPS, tmp_path / "calm").last)
    for steps in (5, 2):
        with killed_after(steps):
            heal(small, whole, context, STEPS, tmp_path / "killed")
        state = read_state(tmp_path / "killed")
        state["settings"]["autoanchor"] = False  # as earlier versions noted it; without labels it plays no part
        write_state(tmp_path / "killed", state)
    gone_on = load_checkpoint(heal(small, whole, context, STEPS, tmp_path / "killed").last)
    assert all(torch.equal(tensor, gone_on.tensors[name]) for name, tensor in calm.tensors.items())


def test_auto_ends_when_the_held_out_loss_is_flat_and_notes_what_it_did(
    small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([6.0, 5.0, 3.0, *[4.0] * 90])  # the first is of what it starts from
    monkeypatch.setattr(HeldOut, "__call__", lambda self, student: HeldOutLoss(next(losses)))
    monkeypatch.setattr(healing, "PIECE", 1)
    result = heal(small, whole, context, dataclasses.replace(AUTO, heal_minutes=0), tmp_path)
    rates = [float(row["x/lr1"]) for row in csv.DictReader((tmp_path / "results.csv").open())]
    assert result.epochs == len(rates) < 30 and result.metrics["held-out loss"] == 3.0
    # After the warm-up the rate is the highest, and it falls at the end alone.
    falls = [later < earlier for earlier, later in pairwise(rates[5:])]
    assert max(rates) == pytest.approx(AUTO.heal_lr, rel=1e-3) and sum(falls) in range(3, 15) and falls[-1]
    noted = read_json(tmp_path / NOTES)
    assert noted["reason"] == "flattened" and noted["steps"] == len(rates) and noted["seconds"] > 0
    assert (noted["before"], noted["after"], noted["piece"]) == (6.0, 3.0, 1)
    with monkeypatch.context() as broken:  # it has ended: nothing is measured but the start, and nothing noted
        broken.setattr(HeldOut, "__call__", lambda self, student: HeldOutLoss(9.0))
        heal(small, whole, context, dataclasses.replace(AUTO, heal_minutes=0), tmp_path)
    assert read_json(tmp_path / NOTES) == noted


def test_a_killed_auto_healing_takes_the_same_decisions(
    small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StepClock()
    monkeypatch.setattr(open_end, "time", clock)
    monkeypatch.setattr(healing, "time", clock)
    monkeypatch.setattr(Session, "step", clock.counting(Session.step))
    monkeypatch.setattr(pace, "seconds_a_step", lambda *_: 0.1)
    limited = dataclasses.replace(AUTO, heal_minutes=0.5)
    calm = load_checkpoint(heal(small, whole, context, limited, tmp_path / "calm").last)
    for steps in (9, 6, 12):
        clock.now += 1e6  # between two parts the minutes stand still
        with killed_after(steps):
            heal(small, whole, context, limited, tmp_path / "killed")
    gone_on = load_checkpoint(heal(small, whole, context, limited, tmp_path / "killed").last)
    assert all(torch.equal(tensor, gone_on.tensors[name]) for name, tensor in calm.tensors.items())
    tables = [(tmp_path / name / "results.csv").read_text() for name in ("calm", "killed")]
    assert tables[0] == tables[1]
    notes = [read_json(tmp_path / name / NOTES) for name in ("calm", "killed")]
    assert [note["steps"] for note in notes] == [28, 28] and {note["reason"] for note in notes} == {"minutes"}


def test_progress_counts_to_the_end_that_the_minutes_allow(
    small: Checkpoint,
    whole: Checkpoint,
    context: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = StepClock()
    for module in (open_end, healing):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(Session, "step", clock.counting(Session.step))
    monkeypatch.setattr(pace, "seconds_a_step", lambda *_: 0.1)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with caplog.at_level("INFO"):
        result = heal(small, whole, context, dataclasses.replace(AUTO, heal_minutes=0.5), tmp_path)
    ends = [int(end.replace(",", "")) for end in re.findall(r"epochs: \d+ of ([\d,]*\d)", caplog.text)]
    assert len(ends) == result.epochs and max(ends) <= result.epochs + 1 and ends[-1] == result.epochs


def test_a_perfect_student_costs_nothing(whole: Checkpoint, context: Context) -> None:
    assert distance(whole, whole, context) == pytest.approx(0, abs=1e-4)


def test_pieces_are_the_same_stream_from_any_point(small: Checkpoint, context: Context) -> None:
    split, _ = divided(split_of(context), 0)
    pieces = Pieces(batches_of(split, train_settings(STEPS, context, len(split)), small, context), 5)
    whole = [batch.images for number in range(2) for batch in pieces.epoch(number)]
    assert len(whole) == 10
    assert all(torch.equal(a.images, b) for a, b in zip(pieces.epoch(1, 2), whole[7:], strict=True))


def test_images_are_divided_without_overlap(context: Context) -> None:
    split = FAMILIES["yolov5"].split(context.unlabelled, "train", objects=False)
    learn, out = (set(part.index.files) for part in divided(split, 3))  # type: ignore[attr-defined]
    assert len(out) == 8 and not learn & out
    assert learn | out == set(split.index.files)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="at least 16 images, but there are 10"):
        divided(split.select(range(10)), 0)


def test_what_cannot_teach_is_refused(small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path) -> None:
    other = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3), whole.names))
    with pytest.raises(UserError, match="predicts at strides"):
        heal(small, other, context, STEPS, tmp_path)
    with pytest.raises(UserError, match="is of the family 'module', but the student is of 'yolov5'"):
        heal(small, Checkpoint.of(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))), context, STEPS, tmp_path)
    with pytest.raises(UserError, match="Healing needs images"):
        heal(small, whole, dataclasses.replace(context, unlabelled=None), STEPS, tmp_path)


def test_a_teacher_that_the_student_was_not_cut_from_teaches_by_its_answers(
    small: Checkpoint, tiny_cfg: Path, whole: Checkpoint, context: Context, tmp_path: Path
) -> None:
    stranger = Checkpoint.of(Detector(Topology.from_yaml(tiny_cfg, nc=3), whole.names))
    stranger = dataclasses.replace(stranger, plan=small.plan)
    result = heal(small, stranger, context, STEPS, tmp_path)
    assert result.epochs == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"heal_steps": 0},
        {"heal_steps": "some"},
        {"heal_minutes": -1.0},
        {"heal_batch": 1},
        {"heal_lr": 1.0},
        {"heal_features": -1.0},
        {"heal_lr": float("nan")},
        {"heal_norms": "no"},
    ],
)
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="--heal-"):
        HealSettings(**bad)  # type: ignore[arg-type]


def test_what_the_user_leaves_open_is_the_family_s() -> None:
    own = HealDefaults(lr=0.0002, batch=4, norms="keep")
    assert own.filled(HealSettings()) == HealSettings(heal_lr=0.0002, heal_batch=4, heal_norms="keep")
    given = HealSettings(heal_lr=0.1, heal_batch=2, heal_norms="learn")
    assert own.filled(given) == given


def test_a_close_start_is_healed_gently() -> None:
    own = HealDefaults(near=1.5)
    close, far = own.filled(HealSettings(), 1.4), own.filled(HealSettings(), 1.6)
    assert (close.heal_norms, far.heal_norms) == ("keep", "learn") and close.heal_lr < far.heal_lr
    given = HealSettings(heal_lr=0.1, heal_batch=2, heal_norms="learn")
    assert own.filled(given, 0.1) == given


@pytest.mark.parametrize("near", [0.0, math.inf])
def test_what_a_healing_chose_is_in_the_history(
    near: float, small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = HealDefaults(near=near)
    monkeypatch.setattr(type(family_of(small)), "healing", own)
    healed = heal(small, whole, context, dataclasses.replace(STEPS, heal_steps=2, heal_lr=0.0), tmp_path)
    chosen = load_checkpoint(healed.last).history[-1].settings
    expected = (own.near_lr, "keep") if near else (own.lr, "learn")
    assert (chosen["heal_lr"], chosen["heal_norms"]) == expected


@pytest.mark.parametrize("norms", ["learn", "keep"])
def test_norms_learn_their_statistics_or_keep_them(
    norms: Literal["learn", "keep"], small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path
) -> None:
    result = heal(small, whole, context, dataclasses.replace(STEPS, heal_norms=norms, heal_steps=2), tmp_path)
    last, means = load_checkpoint(result.last), [name for name in small.tensors if name.endswith("running_mean")]
    kept = [torch.equal(last.tensors[name], small.tensors[name].half()) for name in means]
    assert means and all(kept) == (norms == "keep")
    moved = [name for name in small.tensors if name.endswith("bn.weight")]
    assert any(not torch.equal(last.tensors[name], small.tensors[name].half()) for name in moved)
