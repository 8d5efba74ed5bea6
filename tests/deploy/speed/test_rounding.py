"""`--round-to auto`: which multiple a machine likes, from a clock that follows a formula; and that a number stays."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

import pytest

import secateur
from latency_subjects import FAKE, Clock
from secateur.deploy.speed import rounding
from secateur.deploy.speed.rounding import auto_round_to, best_multiple, decided_guards, losses_of
from secateur.deploy.timing import STOPWATCHES
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.pruning.latency import Signature
from secateur.pruning.options import GuardSettings, LatencySettings
from secateur.pruning.settings import Guards
from secateur.runs.recipes.recipe import Recipe, RecipeEntry
from secateur.runs.recipes.resolve import resolve, settings_of_step
from secateur.steps.step import STEPS

WIDTHS = [width for some in rounding.WIDTHS.values() for width in some]


def blocked(width: int, block: int) -> float:
    """Milliseconds of a square layer that is computed in blocks."""
    return (math.ceil(width / block) * block) ** 2 / 1e4


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A runtime in blocks of 16 in the place of ONNX Runtime, and an empty cache; notes the widths that are timed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    widths: list[int] = []

    def layers(signature: Signature, reads: int, emits: Any, threads: int) -> Clock:
        widths.append(reads)
        return Clock([blocked(width, 16) for width in emits])

    len(STOPWATCHES)
    monkeypatch.setitem(STOPWATCHES._methods, "onnx", dataclasses.replace(FAKE, layers=layers))
    return widths


@pytest.mark.parametrize("block", [4, 8, 16, 32])
def test_the_block_of_a_runtime_is_found(block: int) -> None:
    losses = losses_of([{width: blocked(width, block) for width in WIDTHS}])
    assert best_multiple(losses) == block
    assert all(losses[multiple] == pytest.approx(0) for multiple in losses if multiple >= block)
    assert all(losses[multiple] > 0.1 for multiple in losses if multiple < block)


def test_a_loss_of_a_few_percent_is_none() -> None:
    assert best_multiple({4: 0.2, 8: 0.04, 16: 0.0, 32: 0.0}) == 8
    assert best_multiple({4: 0.0, 8: 0.2, 16: 0.0, 32: 0.0}) == 16, "a coarser width that is slow stands in the way"
    assert best_multiple({4: -0.1, 8: 0.0, 16: 0.0, 32: 0.0}) == 4


def test_it_is_timed_once_and_said(timed: list[int], caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO, "secateur"):
        assert auto_round_to(LatencySettings(threads=2)) == 16
    assert "round-to auto: 16 channels (" in caplog.text and "A Runtime 1.0" in caplog.text
    assert sorted(set(timed)) == sorted(WIDTHS)
    count = len(timed)
    assert auto_round_to(LatencySettings(threads=2)) == 16 and len(timed) == count
    auto_round_to(LatencySettings(threads=1))
    assert len(timed) == 2 * count, "another number of threads is another machine"
    (first, _) = sorted((tmp_path / "cache" / "secateur" / "latency").iterdir())
    first.write_text('{"4": "no number"}')
    auto_round_to(LatencySettings(threads=1))
    auto_round_to(LatencySettings(threads=2))
    assert len(timed) == 3 * count, "a broken file is timed again"


def test_guards_get_a_number(timed: list[int]) -> None:
    asked = GuardSettings(0.2, 3, "auto", ("model.0.*",))
    assert decided_guards(asked, LatencySettings()) == Guards(0.2, 3, 16, ("model.0.*",))
    count = len(timed)
    assert decided_guards(asked, LatencySettings(), milliseconds=True).round_to == 0, "the latency table decides"
    assert decided_guards(GuardSettings(round_to=4), LatencySettings()).round_to == 4 and len(timed) == count
    assert GuardSettings() == GuardSettings(**dataclasses.asdict(Guards()))


@pytest.mark.parametrize("wrong", [{"round_to": "fast"}, {"round_to": -1}, {"min_share": 2}, {"min_count": 0}])
def test_guards_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        GuardSettings(**wrong)


def resolved(settings: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """The settings of a cut as a run records them."""
    recipe = Recipe("mine", "", "", tuple(RecipeEntry(name, own) for name, own in STEPS["prune"].expand(settings)))
    (planned,) = resolve(recipe, overrides, {}, trained=True)
    return settings_of_step(planned)["step"]["channels"]["guards"]


def test_a_run_records_the_number(timed: list[int]) -> None:
    assert resolved({"flops": 0.5, "round_to": "auto"})["round_to"] == 16
    assert resolved({"flops": 0.5, "round_to": 4}, round_to="auto")["round_to"] == 16
    count = len(timed)
    assert resolved({"flops": 0.5, "round_to": "auto"}, round_to=4)["round_to"] == 4
    assert resolved({"flops": 0.5, "round_to": "auto"}, ms="8")["round_to"] == 0
    assert len(timed) == count, "nothing is timed that is not asked for"
    with pytest.raises(UserError, match="round_to is 'fast'; it must be an integer"):
        resolved({"flops": 0.5, "round_to": "fast"})


def test_in_python(timed: list[int], tiny_weights: Path) -> None:
    smaller = secateur.prune(load_checkpoint(tiny_weights), criterion="l2", flops=0.75, round_to="auto", image_size=64)
    widths = {name: tensor.shape[0] for name, tensor in smaller.tensors.items() if name.endswith("conv.weight")}
    whole = {name: tensor.shape[0] for name, tensor in load_checkpoint(tiny_weights).tensors.items() if name in widths}
    assert all(width % 16 == 0 or width == whole[name] for name, width in widths.items()) and widths != whole
    assert timed
