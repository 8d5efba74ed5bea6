"""The gamma penalty: formulas, who is penalised, tied units, exact zeros, logging, resumption."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupted import check_resumption
from torch import Tensor

from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.pruning.graph import Ids
from secateur.sparsity.channels.distribution import distribution
from secateur.sparsity.channels.gamma import GammaPenalty
from secateur.sparsity.settings import SparsifySettings
from secateur.training.batchnorm import synchronise_batchnorm_
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.run import TrainingRun
from toy_training import SETTINGS as TOY
from toy_training import ToyBatches, fit, toy_detector

SETTINGS = replace(TOY, epochs=2, hyp=Hyp(warmup_epochs=0))
HALF = torch.arange(16) % 2 == 0
NORMS: dict[str, Ids] = {
    "model.1.bn": np.arange(100, 132),
    "model.0.bn": np.where(np.arange(16) % 2 == 0, np.arange(16), -1),
}
GAMMAS = "model.0.bn.weight"


def lively_detector() -> Detector:
    detector = toy_detector()
    with torch.no_grad():
        detector.get_parameter(GAMMAS).copy_(torch.linspace(-1, 1, 16))
        detector.get_parameter("model.0.bn.bias").copy_(torch.linspace(1, -1, 16))
    return detector


class Watch(Hook):
    """Copies gradients and weights of norms at each step: around a penalty, one before it and one behind it."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.old: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def before_step(self, run: TrainingRun) -> None:
        named = {name: p for name, p in run.network.named_parameters() if ".bn." in name}
        self.gradients.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})
        self.old.append({name: p.detach().clone() for name, p in named.items()})

    def after_step(self, run: TrainingRun) -> None:
        self.weights.append({name: p.detach().clone() for name, p in run.network.named_parameters() if ".bn." in name})
        self.rates.append(run.learning_rate)


def watched(
    folder: Path, options: SparsifySettings, norms: Mapping[str, Ids] = NORMS, *, count: int = 3, epochs: int = 2
) -> tuple[Watch, Watch]:
    before, after = Watch(), Watch()
    hooks = [before, GammaPenalty(options, norms), after]
    fit(lively_detector(), ToyBatches(count), replace(SETTINGS, epochs=epochs), folder=folder, hooks=hooks)
    return before, after


def test_subgradient_adds_s_times_sign_to_prunable_gammas_only(tmp_path: Path) -> None:
    before, after = watched(tmp_path, SparsifySettings(rate=0.5, schedule="constant", beta=2.0))
    # Accumulation of 2 at batch 32: the first step holds 8 toy images, so the rate is 8/64 of s.
    pull = {"model.0.bn.weight": 1.0 * HALF, "model.1.bn.weight": 1.0, "model.0.bn.bias": 2.0 * HALF}
    pull["model.1.bn.bias"] = 2.0
    for name, gradient in before.gradients[0].items():
        expected = gradient + 0.5 * 8 / 64 * pull.get(name, 0.0) * before.old[0][name].sign()
        torch.testing.assert_close(after.gradients[0][name], expected, rtol=1e-6, atol=1e-8)
    # The second step of the epoch holds the last batch alone: 4 images.
    name = "model.1.bn.weight"
    difference = after.gradients[1][name] - before.gradients[1][name]
    torch.testing.assert_close(difference, 0.5 * 4 / 64 * before.old[1][name].sign())


def test_the_shifts_penalty_does_not_follow_the_schedule(tmp_path: Path) -> None:
    before, after = watched(tmp_path, SparsifySettings(rate=0.1, schedule="step", beta=10.0))
    for step, factor in ((0, 1.0), (2, 0.01)):
        for name, strength in (("model.1.bn.weight", factor), ("model.1.bn.bias", 10.0)):
            difference = after.gradients[step][name] - before.gradients[step][name]
            expected = 0.1 * strength * 8 / 64 * before.old[step][name].sign()
            torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-6)


def test_ramp_raises_the_rate_batch_by_batch(tmp_path: Path) -> None:
    options = SparsifySettings(rate=1.0, schedule="constant", ramp=2.0, beta=3.0)
    before, after = watched(tmp_path, options, count=4)
    # Two batches a step, four an epoch: 2, 4, 6, 8 of 8 batches of the ramp are done.
    for step, share in enumerate((0.25, 0.5, 0.75, 1.0)):
        for name, strength in (("model.1.bn.weight", 1.0), ("model.1.bn.bias", 3.0)):
            difference = after.gradients[step][name] - before.gradients[step][name]
            expected = share * strength * 8 / 64 * before.old[step][name].sign()
            torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-6)


def test_local_schedule_relaxes_the_channels_that_are_largest_at_that_step(tmp_path: Path) -> None:
    before, after = watched(tmp_path, SparsifySettings(rate=1.0, schedule="local"))
    for step in (2, 3):  # of the second epoch
        share = (8, 4)[step - 2] / 64
        old = torch.cat([before.old[step]["model.1.bn.weight"], before.old[step][GAMMAS][HALF]])
        pairs = [(after.gradients[step][n] - before.gradients[step][n]) for n in ("model.1.bn.weight", GAMMAS)]
        pull = torch.cat([pairs[0], pairs[1][HALF]]) / (share * old.sign())
        relaxed = old.abs().topk(6).indices  # 15 % of 40
        expected = torch.ones(40).index_fill(0, relaxed, 0.01)
        torch.testing.assert_close(pull, expected, rtol=1e-3, atol=1e-4)


def test_proximal_step_shrinks_by_learning_rate_times_s_and_gives_exact_zeros(tmp_path: Path) -> None:
    # Hooks run in order: `before` sees the optimizer's new weights, `after` the shrunk ones.
    before, after = watched(tmp_path, SparsifySettings(rate=200.0, mode="proximal", schedule="constant", beta=0.5))
    threshold = before.rates[0] * 200.0 * 8 / 64
    for name, part in ((GAMMAS, 1.0), ("model.0.bn.bias", 0.5)):
        old, new = before.weights[0][name], after.weights[0][name]
        expected = torch.where(HALF, old.sign() * (old.abs() - part * threshold).clamp(min=0), old)
        torch.testing.assert_close(new, expected)
        assert (new[HALF] == 0).any() and (new[~HALF] != 0).all()
    assert torch.equal(before.weights[0]["model.2.cv1.bn.weight"], after.weights[0]["model.2.cv1.bn.weight"])


def test_sparse_training_lowers_gammas_and_writes_their_distribution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = toy_detector()
    norms = {n: np.arange(len(m.weight)) for n, m in detector.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    options = SparsifySettings(rate=3000.0, mode="proximal")
    fit(detector, ToyBatches(3), SETTINGS, folder=tmp_path, hooks=[GammaPenalty(options, norms)])
    rows = list(csv.DictReader((tmp_path / "gamma.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [float(row["rate"]) for row in rows] == pytest.approx([3000, 1650])
    assert float(rows[1]["model/q50"]) < 0.1
    assert float(rows[1]["model/below_0.01"]) > 0.5 and "ema/below_0.001" in rows[1]
    layers = list(csv.DictReader((tmp_path / "gamma_layers.csv").open()))
    assert [row["layer"] for row in layers] == list(norms)
    assert [int(row["channels"]) for row in layers] == [len(ids) for ids in norms.values()]
    assert "penalised scales of the average" in capsys.readouterr().err


def test_tensorboard_has_the_histograms_and_figures_of_every_epoch(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = replace(SETTINGS, tensorboard=True)
    options = SparsifySettings(rate=1.0, beta=10.0)
    fit(lively_detector(), ToyBatches(3), settings, folder=tmp_path, hooks=[GammaPenalty(options, NORMS)])
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = accumulator.EventAccumulator(str(file), {"histograms": 0})
    events.Reload()
    tags = events.Tags()
    for name in ("gamma/model", "gamma/ema", "beta/model", "beta/ema"):
        assert [event.step for event in events.Histograms(name)] == [0, 1]
        assert events.Histograms(name)[0].histogram_value.num == 40
    assert {"gamma/rate", "gamma/ema/below_0.01", "gamma/model/q50"} <= set(tags["scalars"])


def test_synchronised_norms_are_penalised_alike(tmp_path: Path) -> None:
    class Synchronised(Hook):
        def start(self, run: TrainingRun) -> None:
            synchronise_batchnorm_(run.network, "cpu")

    ends = []
    for name, first in (("a", Synchronised()), ("b", Hook())):
        detector = lively_detector()
        penalty = GammaPenalty(SparsifySettings(rate=100.0), NORMS)
        fit(detector, ToyBatches(2), replace(SETTINGS, epochs=1), folder=tmp_path / name, hooks=[first, penalty])
        ends.append(detector.get_parameter(GAMMAS).detach())
    torch.testing.assert_close(ends[0], ends[1])


def test_frozen_norms_are_left_out_and_strange_names_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = lively_detector()
    old = detector.get_parameter(GAMMAS).detach().clone()
    settings = replace(SETTINGS, epochs=1, freeze=(1,))
    options = SparsifySettings(rate=100.0, mode="proximal")
    fit(detector, ToyBatches(2), settings, folder=tmp_path, hooks=[GammaPenalty(options, NORMS)])
    assert torch.equal(detector.get_parameter(GAMMAS), old)
    assert "1 frozen norms are skipped (model.0.bn" in capsys.readouterr().err
    for norms, message in (
        ({"model.99.bn": np.arange(3)}, "model.99.bn, which is not a norm"),
        ({"model.0.bn": np.arange(3)}, "has 3 channels for model.0.bn, but the norm has 16"),
        ({"model.0.bn": np.full(16, -1)}, "no channel to shrink"),
    ):
        with pytest.raises(UserError, match=message):
            fit(detector, ToyBatches(2), SETTINGS, folder=tmp_path, hooks=[GammaPenalty(options, norms)])


@pytest.mark.parametrize(
    "options",
    [
        SparsifySettings(rate=0.5, schedule="local", ramp=1.5, beta=10.0),
        SparsifySettings(rate=50.0, mode="proximal"),
    ],
    ids=["local", "proximal"],
)
def test_killed_training_resumes_to_the_undisturbed_result(tmp_path: Path, options: SparsifySettings) -> None:
    check_resumption(tmp_path, lambda: [GammaPenalty(options, NORMS)], ["gamma.csv", "gamma_layers.csv"])


@pytest.mark.parametrize(
    "option",
    [
        {"rate": -1.0},
        {"rate": float("nan")},
        {"rate": "1e-4"},
        {"reach": 0.0},
        {"mode": "hard"},
        {"penalty": "all"},
        {"beta": -0.1},
        {"ramp": -1.0},
        {"conv_rate": 0.0, "penalty": "both"},
        {"mask_factor": 1.5},
        {"mask_period": 0},
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(option: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"^(Option |--){next(iter(option)).replace('_', '[-_]')} "):
        SparsifySettings(**option)  # type: ignore[arg-type]


def test_no_rate_and_unknown_schedules_are_refused_before_the_training() -> None:
    with pytest.raises(UserError, match="Option rate is 0"):
        GammaPenalty(SparsifySettings(), NORMS)
    with pytest.raises(UserError, match="schedule of the sparsity rate 'cubic'"):
        GammaPenalty(SparsifySettings(rate=1.0, schedule="cubic"), NORMS)


def test_distribution_of_known_values() -> None:
    values = torch.tensor([0.0, 0.0005, 0.005, 0.5, 1.0])
    result = distribution(values)
    assert result["q50"] == pytest.approx(0.005)
    assert result["below_0.01"] == pytest.approx(0.6) and result["below_0.001"] == pytest.approx(0.4)
