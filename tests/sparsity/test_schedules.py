"""Sparsity schedules: Intel's and Zhu and Gupta's values, end points, and how one's own is added."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.sparsity.schedules import SPARSITY_SCHEDULES

OF_FOUR = {
    "exp": [0, 0.3313, 0.5528, 0.7009, 0.8],
    "linear": [0, 0.2, 0.4, 0.6, 0.8],
    "cosine": [0, 0.0609, 0.2343, 0.4939, 0.8],
    "cube": [0, 0.0125, 0.1, 0.3375, 0.8],
    "cubic": [0, 0.4625, 0.7, 0.7875, 0.8],
}
EXP_OF_TEN = [0, 0.1487, 0.2752, 0.3830, 0.4747, 0.5528, 0.6193, 0.6759, 0.7241, 0.7651, 0.8]


def values(name: str, prunings: int, start: float = 0.0, target: float = 0.8) -> list[float]:
    return [SPARSITY_SCHEDULES[name](start, target, number / prunings) for number in range(prunings + 1)]


@pytest.mark.parametrize("name", list(OF_FOUR))
def test_published_values_of_four_prunings(name: str) -> None:
    assert values(name, 4) == pytest.approx(OF_FOUR[name], abs=5e-5)


def test_published_values_of_ten_prunings() -> None:
    assert values("exp", 10) == pytest.approx(EXP_OF_TEN, abs=5e-5)


@pytest.mark.parametrize("name", list(SPARSITY_SCHEDULES))
def test_every_schedule_rises_from_the_present_sparsity_to_the_target(name: str) -> None:
    course = values(name, 40, start=0.3, target=0.9)
    assert course == sorted(course)
    assert course[-1] == pytest.approx(0.9, abs=1e-12)
    assert course[0] == pytest.approx(0.9 if name == "oneshot" else 0.3, abs=1e-12)


def test_oneshot_asks_for_everything_at_once() -> None:
    assert values("oneshot", 4) == [0.8] * 5


def test_unknown_schedules_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"pruning schedule 'sine'; choose one of .*cubic.*oneshot"):
        SPARSITY_SCHEDULES["sine"]


def test_a_file_of_ones_own_adds_a_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root.py").write_text(
        "from secateur.sparsity.schedules import SPARSITY_SCHEDULES\n\n\n"
        "@SPARSITY_SCHEDULES.register('root')\n"
        "def root(start: float, target: float, progress: float) -> float:\n"
        "    return start + (target - start) * progress**0.5\n"
    )
    monkeypatch.setenv("SECATEUR_PLUGINS", str(tmp_path))
    code = (
        "from secateur.sparsity.schedules import SPARSITY_SCHEDULES as s; print(s['root'](0.0, 0.8, 0.25), 'exp' in s)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0.4", "True"]
