"""Schedules of the sparsity rate: their numbers, the ramp, the relaxed channels, one's own schedule."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.registry import load_plugins
from secateur.sparsity.rates import RATES, factor_at, rise


def sizes() -> Tensor:
    return torch.arange(100.0).roll(7)


@pytest.mark.parametrize(
    ("schedule", "first", "half", "last"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("linear", 1.0, 0.55, 0.1 + 0.9 / 50),
        ("cosine", 1.0, 0.6, 0.2 + 0.4 * (1 + math.cos(math.pi * 49 / 50))),
        ("step", 1.0, 0.01, 0.01),
    ],
)
def test_factor_in_the_first_the_middle_and_the_last_epoch(
    schedule: str, first: float, half: float, last: float
) -> None:
    factors = [factor_at(schedule, epoch / 50, sizes) for epoch in (0, 25, 49)]
    assert factors == pytest.approx([first, half, last], abs=1e-12)


def test_linear_ends_near_a_tenth_and_cosine_near_a_fifth() -> None:
    assert factor_at("linear", 0.999999, sizes) == pytest.approx(0.1, abs=1e-5)
    assert factor_at("cosine", 0.999999, sizes) == pytest.approx(0.2, abs=1e-5)


def test_step_falls_with_the_first_epoch_of_the_second_half() -> None:
    assert [factor_at("step", epoch / 5, sizes) for epoch in range(5)] == [1, 1, 1, 0.01, 0.01]


def test_local_relaxes_exactly_the_largest_15_percent_from_half_of_the_epochs() -> None:
    assert factor_at("local", 0.49, sizes) == 1.0
    for progress in (0.5, 0.98):
        factor = factor_at("local", progress, sizes)
        assert isinstance(factor, Tensor)
        assert torch.equal(factor, torch.where(sizes() >= 85, 0.01, 1.0))


def test_local_takes_no_more_than_15_percent_of_equal_channels() -> None:
    factor = factor_at("local", 0.5, lambda: torch.ones(40))
    assert isinstance(factor, Tensor)
    assert (factor < 1).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_schedules_that_need_no_sizes_do_not_ask_for_them() -> None:
    def never() -> Tensor:
        raise AssertionError

    for schedule in ("constant", "linear", "cosine", "step"):
        factor_at(schedule, 0.7, never)


def test_ramp_is_a_line_from_0_over_its_epochs() -> None:
    assert [rise(2.0, iteration, 5) for iteration in (0, 1, 5, 10, 11)] == pytest.approx([0, 0.1, 0.5, 1, 1])
    assert rise(0.0, 0, 5) == 1.0


def test_unknown_schedules_are_refused_by_a_sentence_that_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"'exp'; choose one of constant, cosine, linear, local, step"):
        factor_at("exp", 0.0, sizes)


def test_a_schedule_of_ones_own_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "square.py"
    file.write_text(
        "from secateur.sparsity.rates import RATES\n\n\n"
        "@RATES.register('square')\n"
        "def square(progress, sizes):\n"
        "    return (1 - progress) ** 2\n\n\n"
        "@RATES.register('short')\n"
        "def short(progress, sizes):\n"
        "    return sizes()[:3]\n"
    )
    before = dict(RATES)
    monkeypatch.setattr(RATES, "_methods", dict(before))
    monkeypatch.setenv("SECATEUR_PLUGINS", str(file))
    load_plugins()
    assert factor_at("square", 0.5, sizes) == 0.25
    with pytest.raises(UserError, match=r"short returns factors of the shape \[3\] for 100 channels"):
        factor_at("short", 0.5, sizes)
