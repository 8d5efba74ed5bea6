"""The pruning window: optimizer steps from settings and the training's schedule."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from secateur.errors import UserError
from secateur.sparsity.settings import WeightSettings
from secateur.sparsity.window import Window, pruning_window, steps_in_batches
from secateur.training.hyp import Hyp
from secateur.training.optimization.schedules import Schedule

# 100 batches of 64 an epoch: every batch is an optimizer step, and the warm-up has 300 of them.
SCHEDULE = Schedule(Hyp(), epochs=50, batches=100, batch_size=64)
ON = WeightSettings(target_sparsity=0.8)


def test_from_the_warm_up_to_the_cool_down_in_about_forty_prunings() -> None:
    window = pruning_window(SCHEDULE, replace(ON, cooldown_epochs=20))
    assert (window.start, window.end, window.frequency, window.last_epoch) == (300, 3000, 2701 // 40, 29)
    assert window.prunings == (3000 - 300 + 67) // 67 - 1 == 40
    moments = list(window.moments.items())
    assert moments[0] == (300, 0.0) and moments[1] == (367, 1 / 40) and moments[-1] == (3000, 1.0)


def test_the_cool_down_is_half_of_what_follows_the_warm_up_unless_told() -> None:
    assert pruning_window(SCHEDULE, ON).end == 2700
    assert pruning_window(SCHEDULE, replace(ON, pruning_start=30)).end == 4000
    # A warm-up that takes half of a short training still leaves room for both.
    short = Schedule(Hyp(), epochs=20, batches=8, batch_size=64)
    window = pruning_window(short, ON)
    assert (window.start, window.end) == (80, 120)
    assert pruning_window(SCHEDULE, replace(ON, cooldown_epochs=0)).end == 5000


@pytest.mark.parametrize("frequency", [1, 7, 100, 333, 2200, 9999])
def test_prunings_are_regular_and_the_last_is_at_the_end(frequency: int) -> None:
    window = pruning_window(SCHEDULE, replace(ON, pruning_frequency=frequency, cooldown_epochs=25))
    steps, progress = list(window.moments), list(window.moments.values())
    expected = max((2500 - 300 + frequency) // frequency - 1, 1)
    assert window.prunings == expected and len(steps) == expected + 1
    assert steps[0] == 300 and steps[-1] == 2500
    gaps = [b - a for a, b in pairwise(steps)]
    assert all(gap == frequency for gap in gaps[:-1]) and gaps[-1] >= min(frequency, 2200)
    assert progress == pytest.approx([number / expected for number in range(expected + 1)])


def test_steps_are_optimizer_steps_also_with_accumulation() -> None:
    # Batches of 16: four a step after the warm-up, fewer in it; 100 batches are 25 steps.
    schedule = replace(SCHEDULE, batch_size=16)
    window = pruning_window(schedule, replace(ON, cooldown_epochs=20))
    assert window.end == schedule.steps_until(30)
    assert window.start == schedule.steps_until(3) < 300
    assert pruning_window(schedule, replace(ON, pruning_start=10.5)).start == schedule.steps_until(10) + 12


def test_steps_of_a_part_of_an_epoch_agree_with_those_of_whole_ones() -> None:
    schedule = replace(SCHEDULE, batch_size=16, batches=37, epochs=12)
    counts = [steps_in_batches(schedule, batches) for batches in range(37 * 12 + 1)]
    assert counts == sorted(counts)
    assert all(counts[37 * epoch] == schedule.steps_until(epoch) for epoch in range(13))
    assert max(b - a for a, b in pairwise(counts)) == 1


def test_a_start_at_zero_waits_for_the_first_step() -> None:
    assert pruning_window(SCHEDULE, replace(ON, pruning_start=0)).start == 1


def test_start_and_end_may_coincide() -> None:
    window = pruning_window(SCHEDULE, replace(ON, pruning_start=25, cooldown_epochs=25))
    assert (window.start, window.end, window.prunings) == (2500, 2500, 0)
    assert window.moments == {2500: 1.0}


def test_few_steps_make_a_pruning_of_each() -> None:
    window = Window(10, 12, 2, 0)
    assert window.moments == {10: 0.0, 12: 1.0}
    assert pruning_window(replace(SCHEDULE, hyp=Hyp(warmup_epochs=0), epochs=1, batches=5), ON).moments == {
        1: 0.0, 2: 0.25, 3: 0.5, 4: 0.75, 5: 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("cooldown", [50, 80])
def test_a_cool_down_as_long_as_the_training_is_refused(cooldown: int) -> None:
    with pytest.raises(UserError, match=rf"cooldown.epochs is {cooldown}, but the training has 50 epochs"):
        pruning_window(SCHEDULE, replace(ON, cooldown_epochs=cooldown))


def test_a_window_without_steps_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"pruning_start of 30 epochs ends at optimizer step 3000 .* begin at step 2500"
    ):
        pruning_window(SCHEDULE, replace(ON, pruning_start=30, cooldown_epochs=25))
    with pytest.raises(UserError, match=r"the warm-up ends at optimizer step 300 .* begin at step 200"):
        pruning_window(SCHEDULE, replace(ON, cooldown_epochs=48))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sparsity": -0.1}, "--target-sparsity is -0.1"),
        ({"target_sparsity": 1.0}, "target_sparsity is 1.0"),
        ({"target_sparsity": 0.99}, "target_sparsity is 0.99, but must be between .* max_sparsity"),
        ({"target_sparsity": 0.2, "min_sparsity": 0.3}, r"min_sparsity \(0.3\)"),
        ({"target_sparsity": "8e-1"}, "--target-sparsity is the text '8e-1'.*YAML"),
        ({"max_sparsity": 1.5}, "--max-sparsity is 1.5"),
        ({"pruning_frequency": 0}, "--pruning-frequency is 0"),
        ({"pruning_frequency": 2.5}, "pruning_frequency is 2.5; it must be a whole number"),
        ({"pruning_start": -0.5}, "--pruning-start is -0.5"),
        ({"cooldown_epochs": -2}, "--cooldown-epochs is -2"),
        ({"pruning_scope": "world"}, "--pruning-scope is 'world'; choose one of global"),
        ({"group_lasso": -1.0}, "--group-lasso is -1.0"),
        ({"target_sparsity": 0.5, "lock_zeros": True}, "lock_zeros keeps zeros and adds none"),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        WeightSettings(**options)  # type: ignore[arg-type]
