"""The soft mask: when it acts, on which channels, on what of them, and resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupted import check_resumption
from torch import Tensor

from secateur.families.yolov5.model import Detector
from secateur.pruning.graph import Ids
from secateur.sparsity.channels.gamma import GammaPenalty
from secateur.sparsity.channels.soft_mask import SoftMask, acts_in
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.run import TrainingRun
from toy_training import SETTINGS as TOY
from toy_training import ToyBatches, fit, toy_detector

SETTINGS = replace(TOY, epochs=2, hyp=Hyp(warmup_epochs=0))
ACTING = SparsifySettings(soft_mask=True, mask_start=0, mask_period=1)
# Channel i of the first norm is tied to channel i of the second for i < 8; the last of the first cannot be pruned.
NORMS: dict[str, Ids] = {
    "model.0.bn": np.where(np.arange(16) < 15, np.arange(16), -1),
    "model.1.bn": np.where(np.arange(32) < 8, np.arange(32), np.arange(32) + 100),
}
FIRST, SECOND = "model.0.bn", "model.1.bn"


def uneven_detector() -> Detector:
    """Weak channels: 0..3 and 15 of the first norm; 0, 1 and 10 of the second."""
    detector = toy_detector()
    with torch.no_grad():
        first, second = detector.get_parameter(f"{FIRST}.weight"), detector.get_parameter(f"{SECOND}.weight")
        first[:4], first[15], second[:2], second[10] = -0.05, 0.05, 0.05, -0.05
        for name in (FIRST, SECOND):
            detector.get_parameter(f"{name}.bias").fill_(0.5)
    return detector


class Around(Hook):
    """Copies everything at the ends of epochs: one stands before the mask, one behind it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def epoch_end(self, run: TrainingRun) -> None:
        tensors = {f"model/{n}": v.clone() for n, v in run.network.state_dict().items()}
        tensors |= {f"ema/{n}": v.clone() for n, v in run.ema.network.state_dict().items()}
        for name, parameter in run.network.named_parameters():
            for key, value in run.optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    tensors[f"{key}/{name}"] = value.clone()
        self.seen.append(tensors)


def masked(folder: Path, options: SparsifySettings = ACTING, **changes: object) -> tuple[Around, Around]:
    before, after = Around(), Around()
    hooks = [before, SoftMask(options, NORMS), after]
    fit(uneven_detector(), ToyBatches(2), replace(SETTINGS, **changes), folder=folder, hooks=hooks)  # type: ignore[arg-type]
    return before, after


def weak_channels() -> dict[str, Tensor]:
    """Whole units under the threshold: tied channels 0 and 1, and channel 10 of the second norm."""
    first, second = torch.zeros(16, dtype=torch.bool), torch.zeros(32, dtype=torch.bool)
    first[:2] = second[:2] = second[10] = True
    return {FIRST: first, SECOND: second}


def test_scales_and_shifts_of_whole_weak_units_shrink_in_model_and_average(tmp_path: Path) -> None:
    before, after = masked(tmp_path)
    for where in ("model", "ema"):
        for name, weak in weak_channels().items():
            for tensor in ("weight", "bias"):
                key = f"{where}/{name}.{tensor}"
                expected = torch.where(weak, before.seen[0][key] * 0.1, before.seen[0][key])
                torch.testing.assert_close(after.seen[0][key], expected, rtol=1e-6, atol=0)
                assert (after.seen[0][key] != before.seen[0][key]).sum() == weak.sum()


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_optimizer_memory_of_masked_entries_is_cleared_and_nothing_else_changes(tmp_path: Path, optimizer: str) -> None:
    before, after = masked(tmp_path, optimizer=optimizer)
    kinds = {"SGD": ("momentum_buffer",), "AdamW": ("exp_avg", "exp_avg_sq")}[optimizer]
    touched = set()
    for name, weak in weak_channels().items():
        for tensor in ("weight", "bias"):
            touched |= {f"model/{name}.{tensor}", f"ema/{name}.{tensor}"}
            for kind in kinds:
                key = f"{kind}/{name}.{tensor}"
                touched.add(key)
                assert (before.seen[0][key][weak] != 0).all()
                assert torch.equal(after.seen[0][key], before.seen[0][key].masked_fill(weak, 0))
    assert before.seen[0].keys() == after.seen[0].keys()
    for key in before.seen[0].keys() - touched:
        assert torch.equal(before.seen[0][key], after.seen[0][key]), key


def test_threshold_is_alpha_times_the_mean_of_all_prunable_scales(tmp_path: Path) -> None:
    # The mean is about 0.87, weak channels lie at 0.05.
    for alpha, acts in ((0.04, False), (0.08, True)):
        before, after = masked(tmp_path / str(alpha), replace(ACTING, mask_alpha=alpha))
        key = f"model/{FIRST}.weight"
        assert torch.equal(before.seen[0][key], after.seen[0][key]) != acts


def test_hard_mask_of_the_last_epoch_leaves_exact_zeros_in_what_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, after = masked(tmp_path, replace(ACTING, mask_factor=0.0))
    for name, weak in weak_channels().items():
        for tensor in ("weight", "bias"):
            assert torch.equal(after.seen[1][f"ema/{name}.{tensor}"] == 0, weak)
    assert "Soft mask: 5 of 47 channels" in capsys.readouterr().err


def test_units_with_a_frozen_member_are_left_alone(tmp_path: Path) -> None:
    before, after = masked(tmp_path, freeze=(1,))
    for tensor in ("weight", "bias"):
        assert torch.equal(before.seen[0][f"model/{FIRST}.{tensor}"], after.seen[0][f"model/{FIRST}.{tensor}"])
    moved = before.seen[0][f"model/{SECOND}.weight"] != after.seen[0][f"model/{SECOND}.weight"]
    assert moved.nonzero().flatten().tolist() == [10]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Pruned-YOLO masks at the start of the epochs 2, 4, 6: at the end of 1, 3, 5; a soft one not after the last.
        ({}, [1, 3, 5]),
        ({"mask_start": 3}, [3, 5]),
        ({"mask_period": 3, "mask_start": 0}, [0, 3, 6]),
        ({"mask_factor": 0.0}, [1, 3, 5, 7]),
        ({"mask_start": 8}, []),
    ],
    ids=str,
)
def test_epochs_in_which_it_acts(options: dict[str, object], expected: list[int]) -> None:
    assert list(acts_in(SparsifySettings(**options), 8)) == expected  # type: ignore[arg-type]


def test_a_mask_that_never_acts_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masked(tmp_path, replace(ACTING, mask_start=7), epochs=1)
    assert "has no effect" in capsys.readouterr().err


def test_killed_training_resumes_to_the_undisturbed_result(tmp_path: Path) -> None:
    options = replace(ACTING, rate=5.0, schedule="cosine", mask_alpha=0.98, mask_factor=0.0)
    check_resumption(tmp_path, lambda: [SoftMask(options, NORMS), GammaPenalty(options, NORMS)], ["gamma.csv"])
