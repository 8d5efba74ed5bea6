"""Criteria of weights: their formulas, and snip-momentum's recursion on the gradients of real trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from weight_training import EVERY_BATCH, PATIENT, narrow_detector, scored, train

from secateur.errors import UserError
from secateur.networks.checkpoint import Checkpoint
from secateur.sparsity.criteria import WEIGHT_CRITERIA
from secateur.sparsity.settings import WeightSettings
from secateur.sparsity.weights import WeightPruning
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun
from secateur.training.settings import TrainSettings
from toy_training import ToyBatches, fit


def test_formulas() -> None:
    old, weight, gradient = torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 0.5]), torch.tensor([2.0, -4.0])
    expected = {"magnitude": [3.0, 0.5], "gradient": [2.0, 4.0], "snip": [6.0, 2.0], "snip_momentum": [6.9, 3.8]}
    assert {name: WEIGHT_CRITERIA[name](old, weight, gradient).tolist() for name in expected} == {
        name: pytest.approx(values) for name, values in expected.items()
    }


def test_unknown_criteria_are_refused_before_anything_is_written() -> None:
    with pytest.raises(UserError, match=r"pruning criterion 'luck'; choose one of .*snip_momentum"):
        WeightPruning(WeightSettings(target_sparsity=0.5, pruning_criterion="luck"), Checkpoint.of(narrow_detector()))


@pytest.mark.parametrize(
    "settings",
    [replace(EVERY_BATCH, batch_size=32, epochs=6), replace(EVERY_BATCH, amp="bf16", epochs=3)],
    ids=["accumulation", "bf16"],
)
def test_snip_momentum_is_the_recursion_in_float64(settings: TrainSettings, tmp_path: Path) -> None:
    reference, capture, run = scored(tmp_path, settings, ToyBatches(count=8, size=2))
    assert run.step == 19 and run.schedule.full_accumulate == (2 if settings.batch_size == 32 else 1)
    assert capture.scores.keys() == reference.scores.keys()
    for name, scores in capture.scores.items():
        expected = reference.scores[name]
        torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    assert any(not mask.all() for mask in capture.masks.values())


class Overflow(Hook):
    """Poisons one gradient of a step, or takes it away; `mend` puts it back before the optimizer sees it."""

    def __init__(self, step: int, value: float | None) -> None:
        self.step, self.value = step, value
        self.mend = Mend(self)

    def before_step(self, run: TrainingRun) -> None:
        """Takes effect before the pruning looks."""
        if run.step + 1 == self.step:
            weight = run.network.get_parameter("model.1.conv.weight")
            self.kept = weight.grad
            weight.grad = None if self.value is None else torch.full_like(weight, self.value)


class Mend(Hook):
    """Undoes an `Overflow`."""

    def __init__(self, overflow: Overflow) -> None:
        self.overflow = overflow
        self.seen: list[dict[str, torch.Tensor]] = []
        self.pruning: WeightPruning | None = None

    def before_step(self, run: TrainingRun) -> None:
        """Gives the gradient back."""
        assert self.pruning is not None
        self.seen.append({name: value.clone() for name, value in self.pruning.scores.items()})
        if run.step + 1 == self.overflow.step:
            run.network.get_parameter("model.1.conv.weight").grad = self.overflow.kept


def scores_of_steps(folder: Path, value: float | None) -> list[dict[str, torch.Tensor]]:
    detector, overflow = narrow_detector(), Overflow(3, value)
    pruning = WeightPruning(PATIENT, Checkpoint.of(detector))
    overflow.mend.pruning = pruning

    settings = replace(EVERY_BATCH, epochs=2)
    fit(detector, ToyBatches(count=4, size=2), settings, folder=folder, hooks=[overflow, pruning, overflow.mend])
    return overflow.mend.seen


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_step_with_a_gradient_that_is_no_number_adds_nothing(value: float, tmp_path: Path) -> None:
    seen = scores_of_steps(tmp_path, value)
    for name in seen[0]:
        assert torch.equal(seen[2][name], seen[1][name])
        assert not torch.equal(seen[3][name], seen[2][name])
        assert all(scores[name].isfinite().all() for scores in seen if scores)


def test_a_weight_without_a_gradient_counts_as_one_with_zeros(tmp_path: Path) -> None:
    seen = scores_of_steps(tmp_path, None)
    name = "model.1.conv.weight"
    torch.testing.assert_close(seen[2][name], 0.9 * seen[1][name])
    assert not torch.equal(seen[2]["model.0.conv.weight"], 0.9 * seen[1]["model.0.conv.weight"])


def test_magnitude_zeroes_the_smallest_weights(tmp_path: Path) -> None:
    detector = narrow_detector()
    start = Checkpoint.of(detector)
    options = WeightSettings(
        target_sparsity=0.6,
        pruning_pattern="1x1",
        pruning_criterion="magnitude",
        pruning_schedule="oneshot",
        cooldown_epochs=0,
    )
    settings = replace(EVERY_BATCH, epochs=1)
    trained = train(tmp_path, options, settings=settings, detector=detector, start=start)
    # The first step prunes by the weights as they were before it: those of the checkpoint.
    old = torch.cat([start.tensors[name].flatten().abs() for name in trained.run.masks])
    kept = torch.cat([mask.flatten() for mask in trained.run.masks.values()])
    assert float(old[~kept].max()) <= float(old[kept].min())
    assert float((~kept).float().mean()) == pytest.approx(0.6, abs=1e-4)
