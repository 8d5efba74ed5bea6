"""What an evaluation says: a classifier's in one line, losses, records of runs, and that only detections name mAP."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path

import pytest

from secateur.scores import Scores

SOURCE = Path(__file__).resolve().parents[1] / "src" / "secateur"
DETECTIONS = {"evaluation/metrics.py", "evaluation/coco.py", "evaluation/curves.py", "evaluation/bootstrap.py"}
# What shows or compares the figures of detections, each where there are some.
SHOWN = {
    "report/page/reference.py", "report/page/sections/cliff.py", "report/page/sections/headline.py",
    "report/page/sections/pareto.py", "report/page/sections/training.py", "report/tradeoff.py",
    "runs/compare/table.py", "runs/pareto/curve.py", "runs/pareto/references.py",
}  # fmt: skip


def test_a_classifier_needs_a_name_and_its_values() -> None:
    scores = Scores("top-1", {"top-1": 0.93, "top-5": 0.99})
    assert (scores.value, scores.coarse_value, scores.fitness, scores.judged_by) == (0.93, 0.93, 0.93, ("top-1",))
    assert scores.line() == "top-1 0.930" and scores.words() == ["top-1 0.930", "top-5 0.990"]
    assert scores.to_columns() == {"metrics/top-1": 0.93, "metrics/top-5": 0.99}
    assert scores.summary() == {"metrics": {"top-1": 0.93, "top-5": 0.99}, "per_class": [], "speed_ms": {}}
    assert (scores.speed_line(), scores.details()) == ("", "")


def test_a_table_of_a_classifier() -> None:
    rows = [{"class": i, "name": name, "images": 2, "top-1": 0.5 + 0.5 * i} for i, name in enumerate(("a" * 30, "dog"))]
    scores = Scores("top-1", {"top-1": 0.75}, counts={"images": 4}, rows=rows, speed_ms={"inference": 1.25})
    assert scores.table().splitlines() == [
        f"{'Class':>22}{'Images':>11}{'top-1':>11}",
        f"{'all':>22}{'4':>11}{'0.75':>11}",
        f"{'a' * 21}…{'2':>11}{'0.5':>11}",
        f"{'dog':>22}{'2':>11}{'1':>11}",
    ]
    assert scores.table(per_class=False).count("\n") == 1
    assert scores.speed_line() == "Speed: 1.2ms inference per image"


def test_where_lower_is_better() -> None:
    small, large = (Scores("error", {"error": value}, higher_is_better=False) for value in (0.25, 0.5))
    assert small.fitness > large.fitness > 0 and small.merit("error") > large.merit("error")
    assert large.share_of(small) == 0.5 and small.share_of(small) == 1
    perfect = Scores("error", {"error": 0.0}, higher_is_better=False)
    assert perfect.share_of(small) == 1 and perfect.share_of(perfect) == 1 and small.share_of(perfect) == 0


def test_the_share_that_is_kept_is_of_the_coarse_figure() -> None:
    whole, cut = (Scores("strict", {"loose": a, "strict": b}, coarse="loose") for a, b in ((0.8, 0.6), (0.4, 0.0)))
    assert cut.share_of(whole) == 0.5 and whole.judged_by == ("loose", "strict")
    assert cut.merit("loose") == 0.4 and cut.fitness == 0
    assert math.isnan(whole.share_of(Scores("loose", {"loose": 0.0})))


def test_a_figure_without_a_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="'top-1' is not one of the values loss"):
        Scores("top-1", {"loss": 1.0})


@pytest.mark.parametrize(
    "scores",
    [
        Scores("strict", {"P": 0.1, "loose": 0.5, "strict": 0.3}, coarse="loose"),
        Scores("loss", {"loss": 0.5, "top-1": 0.9}, higher_is_better=False, digits=4),
    ],
    ids=["accuracy", "loss"],
)
def test_what_a_run_remembers_is_read_again(scores: Scores) -> None:
    assert Scores.from_record(json.loads(json.dumps(scores.record()))) == scores


def test_an_unfinished_run_of_version_0_2_is_read() -> None:
    scores = Scores.from_record({"P": 0.6, "R": 0.5, "mAP50": 0.8, "mAP50-95": 0.4})
    assert (scores.coarse_value, scores.value) == (0.8, 0.4)
    assert scores.to_dict() == {"P": 0.6, "R": 0.5, "mAP50": 0.8, "mAP50-95": 0.4}


def named_in_code(source: str) -> list[str]:
    """Identifiers and texts that name mAP; docstrings and the one line of help of a command are for users."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command":
            prose |= {id(part) for part in node.args}
    found = []
    for node in ast.walk(tree):
        texts = [value for _, value in ast.iter_fields(node) if isinstance(value, str)]
        if id(node) not in prose:
            found += [text for text in texts if re.search(r"mAP|map_?50", text)]
    return found


def test_what_the_guard_sees() -> None:
    code = 'def f(map50):\n    """mAP50."""\n    return map50.mAP50 + g["mAP50"] + h(mAP50_95=1)\n'
    assert sorted(named_in_code(code)) == ["mAP50", "mAP50", "mAP50_95", "map50", "map50"]


def test_only_the_evaluation_of_detections_names_map() -> None:
    """And the family whose package measures by these names."""
    theirs = {"families/ultralytics/driving/validation.py"}
    naming = {str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*.py") if named_in_code(file.read_text())}
    assert naming - theirs - SHOWN == DETECTIONS - {"evaluation/coco.py"}
