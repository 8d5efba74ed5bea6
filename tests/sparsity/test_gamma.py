"""The gamma penalty: formulas, who is penalised, exact zeros, logging, resumption."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from secateur.errors import UserError
from secateur.sparsity.gamma import GammaOptions, GammaPenalty, distribution, rate_at
from secateur.training.hooks import Hook, TrainingRun
from secateur.training.hyp import Hyp
from secateur.training.loop import fit
from secateur.training.settings import TrainSettings

SETTINGS = TrainSettings(
    epochs=2, batch_size=32, image_size=64, amp="off", tensorboard=False, device="cpu", hyp=Hyp(warmup_epochs=0)
)
HALF = torch.arange(16) % 2 == 0
PRUNABLE: dict[str, Tensor | None] = {"model.1.bn": None, "model.0.bn": HALF}


@dataclass
class ToyBatch:
    images: Tensor
    targets: Tensor


class ToyBatches:
    def __len__(self) -> int:
        return 3

    def epoch(self, epoch: int, start: int = 0) -> Iterator[ToyBatch]:
        for number in range(start, 3):
            generator = torch.Generator().manual_seed(10 * epoch + number)
            targets = torch.rand(12, 6, generator=generator)
            targets[:, 0] = torch.arange(12) % 4
            targets[:, 1] = torch.arange(12) % 3
            images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
            yield ToyBatch(images, targets)


def toy_detector() -> Detector:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    with torch.no_grad():
        detector.get_parameter("model.0.bn.weight").copy_(torch.linspace(-1, 1, 16))
    return detector


class Gradients(Hook):
    """Copies gradients and weights at the moments before and after a penalty listed between two of these."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def before_step(self, run: TrainingRun) -> None:
        named = run.detector.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def after_step(self, run: TrainingRun) -> None:
        self.weights.append({name: p.detach().clone() for name, p in run.detector.named_parameters()})
        self.rates.append(run.learning_rate)


def test_schedules() -> None:
    at = [
        [rate_at(GammaOptions(rate=1e-3, schedule=name), epoch, 10) for epoch in (0, 5, 10)]  # type: ignore[arg-type]
        for name in ("constant", "linear", "cosine")
    ]
    assert at[0] == [1e-3] * 3
    assert at[1] == pytest.approx([1e-3, 5.5e-4, 1e-4])
    assert at[2] == pytest.approx([1e-3, 6e-4, 2e-4])


def test_subgradient_adds_s_times_sign_to_prunable_gammas_only(tmp_path: Path) -> None:
    before, after = Gradients(), Gradients()
    options = GammaOptions(rate=0.5, schedule="constant", beta_factor=2.0)
    detector = toy_detector()
    signs = {name: p.detach().sign() for name, p in detector.named_parameters()}
    fit(detector, ToyBatches(), SETTINGS, folder=tmp_path, hooks=[before, GammaPenalty(options, PRUNABLE), after])
    # Accumulation of 2 at batch 32: the first step holds 8 toy images, so the rate is 8/64 of s.
    pull = {"model.0.bn.weight": 1.0 * HALF, "model.1.bn.weight": 1.0, "model.0.bn.bias": 2.0 * HALF}
    pull["model.1.bn.bias"] = 2.0
    for name, gradient in before.gradients[0].items():
        expected = gradient + 0.5 * 8 / 64 * pull.get(name, 0.0) * signs[name]
        torch.testing.assert_close(after.gradients[0][name], expected, rtol=1e-6, atol=1e-8)
    # The second step of the epoch holds the last batch alone: 4 images.
    name = "model.1.bn.weight"
    difference = after.gradients[1][name] - before.gradients[1][name]
    torch.testing.assert_close(difference, 0.5 * 4 / 64 * before.weights[0][name].sign())


def test_proximal_step_shrinks_by_learning_rate_times_s_and_gives_exact_zeros(tmp_path: Path) -> None:
    before, after = Gradients(), Gradients()
    options = GammaOptions(rate=200.0, mode="proximal", schedule="constant")
    # Hooks run in order: `before` sees the optimizer's new weights, `after` the shrunk ones.
    hooks = [before, GammaPenalty(options, PRUNABLE), after]
    fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, hooks=hooks)
    threshold = before.rates[0] * 200.0 * 8 / 64
    old, new = before.weights[0]["model.0.bn.weight"], after.weights[0]["model.0.bn.weight"]
    expected = torch.where(HALF, old.sign() * (old.abs() - threshold).clamp(min=0), old)
    torch.testing.assert_close(new, expected)
    assert (new[HALF] == 0).any() and (new[~HALF] != 0).all()
    assert torch.equal(before.weights[0]["model.2.cv1.bn.weight"], after.weights[0]["model.2.cv1.bn.weight"])


def test_sparse_training_lowers_gammas_and_writes_their_distribution(tmp_path: Path) -> None:
    detector = toy_detector()
    norms = [name.removesuffix(".weight") for name, _ in detector.named_parameters() if name.endswith("bn.weight")]
    options = GammaOptions(rate=3000.0, mode="proximal", schedule="linear")
    fit(detector, ToyBatches(), SETTINGS, folder=tmp_path, hooks=[GammaPenalty(options, dict.fromkeys(norms))])
    rows = list(csv.DictReader((tmp_path / "gamma.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [float(row["rate"]) for row in rows] == pytest.approx([3000, 1650])
    assert float(rows[1]["model/q50"]) < 0.1
    assert float(rows[1]["model/below_0.01"]) > 0.5 and "ema/below_0.001" in rows[1]


def test_frozen_norms_are_left_out_and_strange_names_refused(tmp_path: Path) -> None:
    detector = toy_detector()
    old = detector.get_parameter("model.0.bn.weight").detach().clone()
    settings = replace(SETTINGS, epochs=1, freeze=(1,))
    options = GammaOptions(rate=100.0, mode="proximal")
    fit(detector, ToyBatches(), settings, folder=tmp_path, hooks=[GammaPenalty(options, PRUNABLE)])
    assert torch.equal(detector.get_parameter("model.0.bn.weight"), old)
    for prunable, message in (
        ({"model.99.bn": None}, "model.99.bn, which is no norm"),
        ({"model.0.bn": torch.ones(3, dtype=torch.bool)}, "has 3 channels, not 16"),
        ({"model.0.bn": torch.zeros(16, dtype=torch.bool)}, "no channel that it may shrink"),
    ):
        with pytest.raises(UserError, match=message):
            fit(detector, ToyBatches(), SETTINGS, folder=tmp_path, hooks=[GammaPenalty(options, prunable)])


def test_interrupted_sparse_training_resumes_with_its_rows(tmp_path: Path) -> None:
    class Stop(Hook):
        def before_step(self, run: TrainingRun) -> None:
            if run.epoch == 1 and not (tmp_path / "stopped").exists():
                (tmp_path / "stopped").touch()
                raise KeyboardInterrupt

    ends = []
    for name in ("b", "a"):
        detector, hooks = toy_detector(), [GammaPenalty(GammaOptions(rate=1.0), PRUNABLE), Stop()]
        if name == "b":
            with pytest.raises(KeyboardInterrupt):
                fit(detector, ToyBatches(), SETTINGS, folder=tmp_path / name, hooks=hooks)
            detector, hooks = toy_detector(), [GammaPenalty(GammaOptions(rate=1.0), PRUNABLE), Stop()]
        fit(detector, ToyBatches(), SETTINGS, folder=tmp_path / name, hooks=hooks, resume=name == "b")
        ends.append((detector.state_dict(), (tmp_path / name / "gamma.csv").read_text()))
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in ends[0][0])


@pytest.mark.parametrize(
    "option", [{"rate": -1.0}, {"mode": "hard"}, {"schedule": "step"}, {"beta_factor": -0.1}], ids=str
)
def test_bad_options_are_refused_by_name(option: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(option))):
        GammaOptions(**option)  # type: ignore[arg-type]


def test_distribution_of_known_values() -> None:
    values = torch.tensor([0.0, 0.0005, 0.005, 0.5, 1.0])
    result = distribution(values)
    assert result["q50"] == pytest.approx(0.005)
    assert result["below_0.01"] == pytest.approx(0.6) and result["below_0.001"] == pytest.approx(0.4)
