"""Networks to compare with: from CSV, from JSON, from a pareto.json; bad rows are one sentence."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.report.page.reference import ReferencePoint, published, read_reference


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "family.csv"
    file.write_text("label, line, mAP50, mAP50-95, gflops, ms\nn,YOLO,0.45,0.28,4.5,\ns,,,0.374,16.5,7\n")
    assert read_reference(file) == [
        ReferencePoint("n", "YOLO", {"mAP50": 0.45, "mAP50_95": 0.28, "gflops": 4.5}),
        ReferencePoint("s", "family", {"mAP50_95": 0.374, "gflops": 16.5, "ms": 7.0}),
    ]


def test_json_and_pareto_files(tmp_path: Path) -> None:
    rows = [{"label": "half", "mAP50": 0.5, "mAP50_95": None, "ms": 3}]
    for name, content in (("a.json", rows), ("b.json", {"points": rows, "knee": None})):
        (tmp_path / name).write_text(json.dumps(content))
        (point,) = read_reference(tmp_path / name)
        assert point.figures == {"mAP50": 0.5, "ms": 3.0}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "label,mAP50\n,0.5\n", "Row 1 of .* has no label"),
        ("a.csv", "label,gflops\nn,4.5\n", "has no mAP50 or mAP50-95"),
        ("a.csv", "label,mAP50\nn,good\n", "mAP50 is 'good'; it must be a number"),
        ("a.csv", "label,mAP50\nn,-1\n", "0 or more"),
        ("a.csv", "label,mAP50\n", "has no rows"),
        ("a.json", '{"knee": 1}', "is not a list of networks"),
        ("a.json", "[1]", "is not a list of networks"),
        ("a.json", "[", "not valid JSON"),
    ],
)
def test_bad_rows(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read_reference(tmp_path / name)


def test_published_figures_rise_with_size() -> None:
    for line in ("YOLOv5", "YOLOv8", "YOLO11", "YOLO26"):
        own = [point.figures for point in published() if point.line == line]
        assert len(own) == 5
        assert all(a["gflops"] < b["gflops"] and a["mAP50_95"] < b["mAP50_95"] for a, b in pairwise(own))
