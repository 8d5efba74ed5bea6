"""Weight pruning in training: zeros at every step and in the files, the target before the cool-down, resumption."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from weight_training import (
    EVERY_BATCH,
    ON,
    Each,
    Shares,
    check_resumption,
    narrow_detector,
    train,
    trained_with,
    weights_of,
    zeros,
)

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.sparsity.patterns import to_matrix
from secateur.sparsity.schedules import SPARSITY_SCHEDULES
from secateur.sparsity.settings import WeightSettings
from secateur.training.run import TrainingRun
from toy_training import Die

PATTERNS = {"1x1": 0.8, "4x1": 0.8, "channelx1": 0.7, "1xchannel": 0.7, "2:4": 0.5, "1:4": 0.6}


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        *(("plain", pattern) for pattern in PATTERNS),
        *(("progressive", pattern) for pattern in ("1x1", "4x1", "2:4", "channelx1")),
        *(("gradient", pattern) for pattern in ("1x1", "4x1", "1:4")),
    ],
)
def test_the_target_is_reached_before_the_cool_down_and_holds_in_the_files(
    pattern: str, kind: str, tmp_path: Path
) -> None:
    target, progressive = PATTERNS[pattern], kind == "progressive"
    # By gradients alone, weights that are zero already do not score low.
    criterion = "gradient" if kind == "gradient" else "snip_momentum"
    options = replace(
        ON, target_sparsity=target, pruning_pattern=pattern, progressive=progressive, pruning_criterion=criterion
    )
    trained, shares = trained_with(tmp_path, options)
    names = list(trained.run.masks)
    block = 0.006 if "channel" in pattern else 0.001  # blocks of this tiny detector are coarse
    for step in range(1, 4):
        assert shares.model[step] == 0
    for step, progress in ((8, 1 / 3), (12, 2 / 3), (16, 1.0)):
        wanted = SPARSITY_SCHEDULES["exp"](0.0, target, progress)
        assert shares.model[step] == pytest.approx(wanted, abs=block)
        assert shares.average[step] == shares.model[step]
    assert all(shares.model[step] == shares.model[16] for step in range(16, 25))
    course = list(shares.model.values())
    assert course == sorted(course)
    between = [shares.model[step] for step in (5, 6, 7, 8)]
    if progressive:
        assert between == pytest.approx([between[3] * q / 4 for q in (1, 2, 3, 4)], abs=block)
    else:
        assert between[:3] == [0, 0, 0]
    assert trained.result.best_epoch >= 1
    for detector in (trained.best, trained.last):
        assert zeros(weights_of(detector, names)) == pytest.approx(target, abs=0.002 + block)


@pytest.mark.parametrize("pattern", ["2:4", "2:8"])
def test_every_group_of_n_of_m_is_exact_in_the_files(pattern: str, tmp_path: Path) -> None:
    kept, size = (int(number) for number in pattern.split(":"))
    options = replace(ON, pruning_pattern=pattern, target_sparsity=(size - kept) / size)
    trained, _ = trained_with(tmp_path, options)
    for file in (trained.result.best, trained.result.last):
        tensors = load_checkpoint(file).tensors
        for name in trained.run.masks:
            groups = to_matrix(tensors[name]).reshape(-1, size)
            assert ((groups != 0).sum(1) == kept).all(), name


def test_blocks_of_four_output_channels_go_together(tmp_path: Path) -> None:
    trained, _ = trained_with(tmp_path, ON)
    for weight in weights_of(trained.best, list(trained.run.masks)).values():
        dead = (to_matrix(weight) == 0).reshape(weight.shape[0] // 4, 4, -1).sum(1)
        assert ((dead == 0) | (dead == 4)).float().mean() > 0.999  # fp16 may round a tiny weight to zero


def test_only_epochs_at_the_target_become_best(tmp_path: Path) -> None:
    trained = train(tmp_path, replace(ON, cooldown_epochs=0))
    assert trained.result.best_epoch == 2


def test_one_shot_prunes_at_the_start(tmp_path: Path) -> None:
    _, shares = trained_with(tmp_path, replace(ON, pruning_schedule="oneshot"))
    assert shares.model[3] == 0 and shares.model[4] == pytest.approx(0.8, abs=0.001)
    assert shares.model[24] == shares.model[4]


def test_a_window_of_one_step_prunes_everything_there(tmp_path: Path) -> None:
    _, shares = trained_with(tmp_path, replace(ON, pruning_start=2.0))
    assert shares.model[15] == 0 and shares.model[16] == pytest.approx(0.8, abs=0.001)


def test_a_frequency_that_does_not_divide_moves_the_last_pruning_to_the_end(tmp_path: Path) -> None:
    _, shares = trained_with(tmp_path, replace(ON, pruning_frequency=5, pruning_schedule="linear"))
    assert [shares.model[step] for step in (8, 9, 15, 16)] == pytest.approx([0, 0.4, 0.4, 0.8], abs=0.001)


@pytest.mark.parametrize("progressive", [False, True])
def test_skipped_steps_do_not_delay_the_target_into_the_cool_down(progressive: bool, tmp_path: Path) -> None:
    def skip(run: TrainingRun) -> None:
        # What an fp16 scaler that skips steps does to the count.
        if run.epoch == 1 and run.batch % 3 == 0:
            run.step -= 1

    shares = Shares()
    options = replace(ON, progressive=progressive)
    trained = train(tmp_path, options, before=[Each(skip)], after=[shares])
    assert trained.run.step < 24
    rows = list(csv.DictReader((tmp_path / "sparsity.csv").open()))
    assert [float(row["model"]) for row in rows[1:]] == pytest.approx([0.8] * 2, abs=0.001)
    assert trained.result.best_epoch >= 1


def test_the_optimizer_forgets_what_it_knew_of_masked_weights(tmp_path: Path) -> None:
    seen = []

    def look(run: TrainingRun) -> None:
        if run.step in (4, 8, 12, 16):
            for name, mask in run.masks.items():
                momentum = run.optimizer.state[run.network.get_parameter(name)]["momentum_buffer"]
                assert (momentum[~mask] == 0).all()
                seen.append(int((~mask).sum()))

    train(tmp_path, ON, after=[Each(look)])
    assert sum(seen) > 0


def test_scopes_and_bounds_of_layers(tmp_path: Path) -> None:
    layer, _ = trained_with(tmp_path / "layer", replace(ON, pruning_scope="layer", target_sparsity=0.5))
    for name, mask in layer.run.masks.items():
        assert float((~mask).float().mean()) == pytest.approx(0.5, abs=4 / mask.numel()), name
    bounded = replace(ON, min_sparsity=0.6, max_sparsity=0.85)
    trained, _ = trained_with(tmp_path / "bounded", bounded)
    shares = [float((~mask).float().mean()) for mask in trained.run.masks.values()]
    assert min(shares) >= 0.6 and max(shares) <= 0.85
    assert zeros(weights_of(trained.last, list(trained.run.masks))) == pytest.approx(0.8, abs=0.002)


def test_excluded_frozen_and_indivisible_layers_stay_dense_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(ON, pruning_pattern="16x1", exclude_weights=("model.9.*",), target_sparsity=0.5)
    trained = train(tmp_path, options, settings=replace(EVERY_BATCH, freeze=(4,)))
    text = " ".join(capsys.readouterr().err.split())
    assert "cannot be divided into 16x1: model.0.conv" in text
    assert "are frozen: model.1.conv" in text
    for name, weight in weights_of(trained.last).items():
        if name not in trained.run.masks:
            assert (weight != 0).float().mean() > 0.99, name
    assert not any(name.startswith(("model.0.", "model.1.", "model.9.")) for name in trained.run.masks)


def test_training_goes_on_from_zeros_that_are_there(tmp_path: Path) -> None:
    first, _ = trained_with(tmp_path / "first", replace(ON, target_sparsity=0.5))
    start = load_checkpoint(first.result.last)
    second = train(tmp_path / "second", ON, start=start)
    assert zeros(weights_of(second.last, list(second.run.masks))) == pytest.approx(0.8, abs=0.002)
    for name, mask in start.masks.items():
        assert not (second.run.masks[name] & ~mask).any(), name
    rows = list(csv.DictReader((tmp_path / "second" / "sparsity.csv").open()))
    assert 0.5 < float(rows[0]["model"]) < 0.8
    with pytest.raises(UserError, match=r"already has 80.0 % zeros, more than --target-sparsity 0.6"):
        train(tmp_path / "third", replace(ON, target_sparsity=0.6), start=load_checkpoint(second.result.last))
    again = train(tmp_path / "again", ON, start=load_checkpoint(second.result.last))
    assert zeros(weights_of(again.last, list(again.run.masks))) == pytest.approx(0.8, abs=0.002)


def test_masks_of_layers_that_are_not_pruned_here_are_held(tmp_path: Path) -> None:
    first = train(tmp_path / "first", replace(ON, pruning_pattern="1x1", target_sparsity=0.3))
    start = load_checkpoint(first.result.last)
    options = replace(ON, exclude_weights=("model.1.*",))
    second = train(tmp_path / "second", options, start=start)
    name = "model.1.conv.weight"
    assert torch.equal(second.run.masks[name], start.masks[name])
    assert (second.last.get_parameter(name)[~start.masks[name]] == 0).all()
    covered = [name for name in second.run.masks if not name.startswith("model.1.")]
    # Single zeros of before are no blocks of 4x1; they hold all the same, and count.
    assert zeros(weights_of(second.last, covered)) == pytest.approx(0.8, abs=0.002)
    assert all((second.last.get_parameter(name)[~start.masks[name]] == 0).all() for name in covered)
    with pytest.raises(UserError, match=r"already has 30.0 % zeros, more than --target-sparsity 0.2"):
        train(tmp_path / "third", replace(ON, target_sparsity=0.2), start=start)


def test_locked_zeros_leave_the_masks_of_excluded_layers(tmp_path: Path) -> None:
    first = train(tmp_path / "first", replace(ON, pruning_pattern="1x1", target_sparsity=0.3))
    start = load_checkpoint(first.result.last)
    second = train(tmp_path / "second", WeightSettings(lock_zeros=True, exclude_weights=("model.1.*",)), start=start)
    assert all((second.last.get_parameter(name)[~mask] == 0).all() for name, mask in start.masks.items())


CASES = {
    "snip_momentum 4x1": ON,
    "progressive": replace(ON, progressive=True),
    "progressive 2:4": replace(ON, progressive=True, pruning_pattern="2:4", target_sparsity=0.5),
    "2:4": replace(ON, pruning_pattern="2:4", target_sparsity=0.5),
    "lasso": replace(ON, group_lasso=0.01, pruning_criterion="magnitude"),
    "lock": WeightSettings(lock_zeros=True),
}


@pytest.mark.parametrize("case", list(CASES))
def test_killed_at_random_steps_and_resumed_the_result_is_the_undisturbed_one(case: str, tmp_path: Path) -> None:
    start = None
    if case == "lock":
        detector = narrow_detector()
        weight = detector.get_parameter("model.1.conv.weight")
        weight.data[weight.abs() < weight.abs().median()] = 0
        start = Checkpoint.of(detector)
    step = random.randrange(4, 25)
    print(f"dies before step {step}")  # pytest shows it when the test fails
    check_resumption(tmp_path, CASES[case], start, [step])


def test_resuming_with_another_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, ON, after=[Die(12)])
    with pytest.raises(UserError, match="option pruning_pattern was '4x1' and is '1x1' now"):
        train(tmp_path, replace(ON, pruning_pattern="1x1"), after=[Die(None)], resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_sparsity": 0.0}, "nothing to do: set target_sparsity"),
        ({"pruning_pattern": "5-1"}, "pruning pattern '5-1'"),
        ({"pruning_pattern": "2:4"}, "0.8 exceeds the limit of the pattern 2:4"),
        ({"pruning_pattern": "2:4", "target_sparsity": 0.51}, "0.51 exceeds the limit of the pattern 2:4"),
        ({"pruning_criterion": "luck"}, "pruning criterion 'luck'"),
        ({"pruning_schedule": "sine"}, "pruning schedule 'sine'"),
        ({"exclude_weights": ("model.77",)}, "'model.77' matches no layer"),
        ({"exclude_weights": ("*",)}, "fits none of the 0 layers"),
        ({"cooldown_epochs": 3}, "cooldown.epochs is 3, but the training has 3 epochs"),
        ({"pruning_pattern": "2:4", "target_sparsity": 0.5, "group_lasso": 0.1}, "group_lasso shrinks whole blocks"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_trained(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(tmp_path, replace(ON, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "weights").exists() and not (tmp_path / "state.pt").exists()


def test_nothing_is_left_to_prune_when_all_layers_are_frozen(tmp_path: Path) -> None:
    settings = replace(EVERY_BATCH, freeze=(9,))
    with pytest.raises(UserError, match="No weight can be pruned"):
        train(tmp_path, replace(ON, exclude_weights=("model.9.*",)), settings=settings)
