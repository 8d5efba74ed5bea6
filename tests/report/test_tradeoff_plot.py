"""A curve as a table, in words, as CSV and as a plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import pytest

from secateur.evaluation.tradeoff import CurvePoint, dominated, knee
from secateur.report.tradeoff import curve_csv, curve_table, knee_sentence, plot_curve, winner_sentences

FIGURES = ("mAP50", "mAP50-95")
VALUES = [
    ("n", "n", "dense", 8.0, 0.60), ("n-50", "n", "pruned", 5.0, 0.30), ("n-50-healed", "n", "healed", 5.0, 0.55),
    ("s", "s", "dense", 20.0, 0.70), ("s-50", "s", "pruned", 11.0, 0.66), ("s-30", "s", "finetuned", 7.0, 0.50),
]  # fmt: skip


def points() -> list[dict[str, Any]]:
    return [
        {"label": label, "network": network, "kind": kind, "ms": ms, "accuracy": value, "mAP50": None,
         "mAP50_95": value, "figures": {"mAP50": value + 0.2, "mAP50-95": value}, "parameters": 10**6,
         "gflops": 1.5, "mb": 2.0, "file": f"points/{label}.safetensors"}
        for label, network, kind, ms, value in VALUES
    ]  # fmt: skip


def curve(*left_out: str) -> list[CurvePoint]:
    return [CurvePoint(*value) for value in VALUES if value[0] not in left_out]


def test_the_table_marks_the_knee_and_what_is_dominated() -> None:
    found = knee(curve())
    assert found is not None
    head, *lines = curve_table(points(), FIGURES, found.label, dominated(curve())).splitlines()
    assert head.split() == ["point", "kind", "ms", "mAP50", "mAP50-95", "params", "(M)", "GFLOPs", "MB"]
    assert [line.split()[0] for line in lines] == [value[0] for value in VALUES]
    assert sum("<- knee" in line for line in lines) == 1 and "<- knee" in lines[2]
    assert lines[1].endswith("dominated by n-50-healed") and lines[5].endswith("dominated by n-50-healed")
    assert lines[1].split()[2:5] == ["5.00", "0.500", "0.300"]


def test_the_knee_in_words() -> None:
    assert knee_sentence(curve(), knee(curve())) == (
        "The knee is n-50-healed: 79% of the accuracy of s in 25% of its time."
    )
    assert knee_sentence(curve()[:1], None).startswith("No knee: below n ")


def test_which_network_wins_is_said_with_its_range() -> None:
    first, duel = winner_sentences(curve(), "mAP50-95")
    assert "n wins below 11.00 ms (by 0.050 to 0.100), s wins from 11.00 ms on (by 0.060 to 0.100)" in first
    assert duel == (
        "A cut s is more accurate than the dense n (mAP50-95 0.600 in 8.00 ms) only from 11.00 ms on: s-50 has 0.660 "
        "in 11.00 ms; at the same time, s-30 reaches 0.500."
    )
    assert "; no cut of it is as fast." in winner_sentences(curve("s-30"), "mAP50-95")[1]
    assert winner_sentences(curve("s-50"), "mAP50-95")[1].startswith("No cut s is more accurate than the dense n")
    assert winner_sentences(curve("s", "s-50", "s-30"), "mAP50-95") == []
    better = [*curve(), CurvePoint("s-40", "s", "healed", 7.5, 0.61)]
    assert winner_sentences(better, "mAP50-95")[1].endswith("from 7.50 ms on: s-40 has 0.610 in 7.50 ms.")


def test_the_csv_has_a_line_a_point() -> None:
    rows = list(csv.DictReader(io.StringIO(curve_csv(points()))))
    assert [row["label"] for row in rows] == [value[0] for value in VALUES]
    assert rows[0]["mAP50"] == "" and float(rows[1]["mAP50_95"]) == 0.3 and "figures" not in rows[0]


def test_the_plot_has_references_and_the_knee(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    others = [{"label": "other", "ms": 15.0, "mAP50": None, "mAP50_95": 0.2}]
    plain = plot_curve(points(), [], FIGURES, tmp_path / "plain.png")
    marked = plot_curve(points(), [], FIGURES, tmp_path / "marked.png", knee="n-50-healed")
    beside = plot_curve(points(), others, FIGURES, tmp_path / "beside.png")
    drawn = [cv2.imread(str(file)) for file in (plain, marked, beside)]
    assert all(image is not None and image.std() > 1 for image in drawn)
    assert (drawn[0] != drawn[1]).any() and (drawn[0] != drawn[2]).any()
