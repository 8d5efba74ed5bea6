"""The penalty on convolution weights: formula, which layers, exact zeros, logging, resumption."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupted import check_resumption
from torch import Tensor

from secateur.errors import UserError
from secateur.pruning.graph import Axis, ChannelGraph, trace
from secateur.sparsity.channels.convolution import ConvPenalty
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.run import TrainingRun
from toy_training import SETTINGS as TOY
from toy_training import ToyBatches, fit, toy_detector

SETTINGS = replace(TOY, epochs=1, hyp=Hyp(warmup_epochs=0))


@cache
def graph() -> ChannelGraph:
    return trace(toy_detector())


class Watch(Hook):
    """Copies gradients and weights at each step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.old: list[dict[str, Tensor]] = []
        self.new: list[dict[str, Tensor]] = []
        self.rate = 0.0

    def before_step(self, run: TrainingRun) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in run.network.named_parameters() if p.grad is not None})
        self.old.append({n: p.detach().clone() for n, p in run.network.named_parameters()})

    def after_step(self, run: TrainingRun) -> None:
        self.new.append({n: p.detach().clone() for n, p in run.network.named_parameters()})
        self.rate = run.learning_rate


def penalised_names() -> set[str]:
    """Every convolution of the network but those of Detect."""
    detector = toy_detector()
    head = f"model.{len(detector.model) - 1}."
    names = {f"{n}.weight" for n, m in detector.named_modules() if isinstance(m, torch.nn.Conv2d)}
    return {name for name in names if not name.startswith(head)}


def test_subgradient_acts_on_all_convolutions_but_those_of_detect(tmp_path: Path) -> None:
    before, after = Watch(), Watch()
    penalty = ConvPenalty(SparsifySettings(penalty="conv", conv_rate=0.5), graph().filters)
    fit(toy_detector(), ToyBatches(2), SETTINGS, folder=tmp_path, hooks=[before, penalty, after])
    chosen = penalised_names()
    for name, gradient in before.gradients[0].items():
        pull = 0.5 * 8 / 64 * before.old[0][name].sign() if name in chosen else torch.zeros(())
        torch.testing.assert_close(after.gradients[0][name], gradient + pull, rtol=1e-6, atol=1e-7)


def test_proximal_step_gives_exact_zeros_and_leaves_detect_alone(tmp_path: Path) -> None:
    before, after = Watch(), Watch()
    penalty = ConvPenalty(SparsifySettings(penalty="conv", conv_rate=30.0, mode="proximal"), graph().filters)
    fit(toy_detector(), ToyBatches(2), SETTINGS, folder=tmp_path, hooks=[before, penalty, after])
    threshold, chosen = before.rate * 30.0 * 8 / 64, penalised_names()
    for name, old in before.new[0].items():
        new = after.new[0][name]
        if name in chosen:
            torch.testing.assert_close(new, old.sign() * (old.abs() - threshold).clamp(min=0))
        else:
            assert torch.equal(new, old)
    assert sum(int((after.new[0][name] == 0).sum()) for name in chosen) > 1000


def test_only_filters_with_a_unit_are_pulled_along_their_axis(tmp_path: Path) -> None:
    filters = {
        "model.0.conv": Axis("model.0.conv.weight", 0, np.where(np.arange(16) < 4, np.arange(16), -1)),
        "model.1.conv": Axis("model.1.conv.weight", 1, np.where(np.arange(16) < 4, np.arange(16), -1)),
        "model.2.cv1.conv": Axis("model.2.cv1.conv.weight", 0, np.full(16, -1)),
    }
    before, after = Watch(), Watch()
    penalty = ConvPenalty(SparsifySettings(penalty="conv", conv_rate=1.0), filters)
    fit(toy_detector(), ToyBatches(2), SETTINGS, folder=tmp_path, hooks=[before, penalty, after])
    moved = {n: after.gradients[0][n] - g for n, g in before.gradients[0].items()}
    assert (moved["model.0.conv.weight"][:4] != 0).all() and (moved["model.0.conv.weight"][4:] == 0).all()
    assert (moved["model.1.conv.weight"][:, :4] != 0).all() and (moved["model.1.conv.weight"][:, 4:] == 0).all()
    assert (moved["model.2.cv1.conv.weight"] == 0).all()


def test_local_schedule_relaxes_whole_filters_by_their_mean_weight(tmp_path: Path) -> None:
    filters = {"model.0.conv": graph().filters["model.0.conv"], "model.1.conv": graph().filters["model.1.conv"]}
    before, after = Watch(), Watch()
    penalty = ConvPenalty(SparsifySettings(penalty="conv", conv_rate=1.0, schedule="local"), filters)
    hooks = [before, penalty, after]
    fit(toy_detector(), ToyBatches(2), replace(SETTINGS, epochs=2), folder=tmp_path, hooks=hooks)
    factors, sizes = [], []
    for name in ("model.0.conv.weight", "model.1.conv.weight"):
        old = before.old[1][name]
        pull = (after.gradients[1][name] - before.gradients[1][name]) / (8 / 64 * old.sign())
        factors.append(pull.flatten(1).mean(1))
        sizes.append(old.abs().flatten(1).mean(1))
    relaxed = torch.cat(sizes).topk(round(0.15 * 48)).indices
    expected = torch.ones(48).index_fill(0, relaxed, 0.01)
    torch.testing.assert_close(torch.cat(factors), expected, rtol=1e-3, atol=1e-4)


def test_training_pulls_weights_towards_zero_and_logs_it(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = replace(SETTINGS, epochs=2, tensorboard=True)
    sums = {}
    for name, hooks in (
        ("free", []),
        ("pulled", [ConvPenalty(SparsifySettings(penalty="conv", conv_rate=5.0), graph().filters)]),
    ):
        detector = toy_detector()
        fit(detector, ToyBatches(3), settings, folder=tmp_path / name, hooks=hooks)
        sums[name] = {n: float(detector.get_parameter(n).detach().abs().sum()) for n in penalised_names()}
    assert sum(sums["pulled"].values()) < 0.9 * sum(sums["free"].values())
    rows = list(csv.DictReader((tmp_path / "pulled" / "filters.csv").open()))
    assert [float(row["rate"]) for row in rows] == pytest.approx([5.0, 2.75])
    assert float(rows[1]["model/q50"]) < float(rows[0]["model/q50"])
    (file,) = (tmp_path / "pulled").rglob("events.out.tfevents.*")
    events = accumulator.EventAccumulator(str(file), {"histograms": 0})
    events.Reload()
    for name in ("filters/model", "filters/ema"):
        assert [event.step for event in events.Histograms(name)] == [0, 1]


def test_frozen_layers_are_left_out_and_bad_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SparsifySettings(penalty="conv", conv_rate=30.0, mode="proximal")
    detector = toy_detector()
    old = detector.get_parameter("model.0.conv.weight").detach().clone()
    frozen = replace(SETTINGS, freeze=(1,))
    fit(detector, ToyBatches(2), frozen, folder=tmp_path / "a", hooks=[ConvPenalty(options, graph().filters)])
    assert torch.equal(detector.get_parameter("model.0.conv.weight"), old)
    assert "1 frozen layers are skipped (model.0.conv" in capsys.readouterr().err
    with pytest.raises(UserError, match="has no filter to shrink"):
        fit(toy_detector(), ToyBatches(2), SETTINGS, folder=tmp_path / "b", hooks=[ConvPenalty(options, {})])
    with pytest.raises(UserError, match="schedule of the sparsity rate"):
        ConvPenalty(replace(options, schedule="none"), graph().filters)


@pytest.mark.parametrize("mode", ["subgradient", "proximal"])
def test_killed_training_resumes_to_the_undisturbed_result(tmp_path: Path, mode: str) -> None:
    options = SparsifySettings(penalty="conv", conv_rate=0.5, schedule="local", ramp=0.5, mode=mode)  # type: ignore[arg-type]
    check_resumption(tmp_path, lambda: [ConvPenalty(options, graph().filters)], ["filters.csv"])
