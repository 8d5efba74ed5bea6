"""The image of a sweep is written, with all columns, with few, and for a single row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from secateur.report.sweep import plot_sweep

pytest.importorskip("matplotlib")

FIGURES = ("mAP50", "mAP50-95")


def rows(**columns: list[float | None]) -> list[dict[str, Any]]:
    base: dict[str, list[Any]] = {
        "removed": [0, 0.1, 0.3], "mAP50": [0.6, 0.6, 0.2], "mAP50-95": [0.4, 0.4, 0.1],
        "parameters": [100, 80, 50], "gflops": [4.0, 3.0, 2.0],
    }  # fmt: skip
    columns = base | columns
    return [{name: values[i] for name, values in columns.items()} for i in range(3)]


def test_every_column_that_is_there_is_drawn(tmp_path: Path) -> None:
    plain = plot_sweep(rows(), FIGURES, tmp_path / "plain.png")
    more = rows(tuned_mAP50=[None, 0.61, 0.5], cut_mAP50=[None, 0.6, 0.2])
    tuned = plot_sweep(more, FIGURES, tmp_path / "tuned.png")
    marked = plot_sweep(rows(), FIGURES, tmp_path / "marked.png", knee=0.1)
    pictures = [cv2.imread(str(path)) for path in (plain, tuned, marked)]
    for picture in pictures:
        assert picture is not None and picture.std() > 1
    assert (pictures[0] != pictures[1]).any() and (pictures[0] != pictures[2]).any()


def test_one_row_and_accuracy_of_nought(tmp_path: Path) -> None:
    nothing = [{"removed": 0.0, "mAP50": 0.0, "mAP50-95": 0.0, "parameters": 10, "gflops": 1.0}]
    assert cv2.imread(str(plot_sweep(nothing, FIGURES, tmp_path / "one.png"))) is not None
