"""What `secateur pareto` refuses, before anything is written, and how budgets, names and references are read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from secateur.cli import parsed
from secateur.commands import COMMANDS
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.budget import Budget
from secateur.pruning.settings import Guards, ScoreSettings
from secateur.runs.folders import OutputOptions
from secateur.runs.pareto.curve import pareto
from secateur.runs.pareto.networks import Target, labels_of
from secateur.runs.pareto.options import ParetoOptions, budgets_of
from secateur.runs.pareto.pace import Pace, Part
from secateur.runs.pareto.references import references


@pytest.fixture
def others(tiny_weights: Path, tiny_cfg: Path, tmp_path: Path) -> dict[str, str]:
    """Networks that do not go with the tiny one: of other classes, and for images of another size."""
    found = {"large": tmp_path / "large.safetensors", "cats": tmp_path / "cats.safetensors"}
    save_checkpoint(dataclasses.replace(load_checkpoint(tiny_weights), image_size=128), found["large"])
    save_checkpoint(Checkpoint.of(Detector(Topology.from_yaml(tiny_cfg, nc=1), {0: "cat"})), found["cats"])
    return {name: str(file) for name, file in found.items()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": ()}, "--weights is missing"),
        ({"weights": ("none.pt",)}, "none.pt"),
        ({"weights": ("TINY", "TINY")}, "twice. Give each network once"),
        ({"weights": ("TINY", "cats")}, "cats.safetensors"),
        ({"weights": ("TINY", "large"), "image_size": 0}, "trained at different image sizes"),
        ({"data": ""}, "--data is missing"),
        ({"budgets": ("0.5",)}, "needs at least two budgets"),
        ({"budgets": ("0.5", "50%")}, "contains 50% twice"),
        ({"budgets": ("0.5", "1.5")}, "--budgets 1.5 is neither a share nor a number"),
        ({"budgets": ("0.5", "much")}, "--budgets much is not a number"),
        ({"budgets": ("0.5", "0")}, "--budgets 0 is not between 0 and 1"),
        ({"budgets": ("0.001", "0.002")}, "None of the budgets can be used. .* cannot be reached"),
        ({"budgets": ("50G", "60G")}, "None of the budgets can be used. .* already meets it"),
        ({"cost": "beauty"}, "Unknown cost 'beauty'"),
        ({"labels": ("a", "b")}, "gives 2 names for 1 networks"),
        ({"labels": ("a/b",)}, "is not allowed in a file name"),
        ({"reference": "none.csv"}, "Cannot read none.csv"),
        ({"guards": Guards(exclude=("nothing.*",))}, "--exclude nothing"),
        ({"score": ScoreSettings(criterion="beauty")}, "beauty"),
        ({"finetune": -1}, "--finetune is -1"),
        ({"hyp": "no-such-hyp"}, "no-such-hyp"),
        ({"distill": "bce"}, "Add --finetune"),
        ({"images": "nowhere"}, "nowhere does not exist"),
        ({"batch_size": 0}, "--batch-size is 0"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    tiny_weights: Path, tiny_data: Path, others: dict[str, str], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    settings: dict[str, Any] = {
        "weights": ("TINY",), "data": str(tiny_data), "image_size": 64, "workers": 0, "guards": Guards(round_to=1),
        "place": OutputOptions(project=str(tmp_path / "runs")), "score": ScoreSettings(criterion="l2"),
    }  # fmt: skip
    settings |= changes
    known = {"TINY": str(tiny_weights), **others}
    settings["weights"] = tuple(known.get(name, name) for name in settings["weights"])
    with pytest.raises(UserError, match=words):
        pareto(ParetoOptions(**settings))
    assert not (tmp_path / "runs").exists()


def test_budgets_are_shares_or_amounts() -> None:
    assert budgets_of(("0.8,0.5", "30%"), "flops") == {
        "0.8": Budget("flops", 0.8), "0.5": Budget("flops", 0.5), "30%": Budget("flops", 0.3),
    }  # fmt: skip
    found = budgets_of(("8ms", "6.5"), "ms")
    assert [budget.amount for budget in found.values()] == [8, 6.5]
    names = [Target(text, budget, 0.5).name for text, budget in found.items()]
    assert names == ["8ms", "6.5"] and Target("12.5%", Budget("flops", 0.125), 0.125).name == "12.5"


def test_the_command_line() -> None:
    words = ["--weights", "n.pt", "s.pt", "--budgets", "0.8", "0.6", "--cost", "params", "--heal", "--labels", "n", "s"]
    chosen = parsed(COMMANDS["pareto"], [*words, "--finetune", "5", "--heal-steps", "7", "--img", "320"])
    assert (chosen.weights, chosen.budgets, chosen.cost) == (("n.pt", "s.pt"), ("0.8", "0.6"), "params")
    assert (chosen.heal, chosen.finetune, chosen.healing.heal_steps, chosen.image_size) == (True, 5, 7, 320)


def test_networks_are_named_after_their_files() -> None:
    assert labels_of(["yolov5n.pt", "runs/a b/best.pt"], ()) == ["yolov5n", "best"]
    assert labels_of(["runs/one/best.pt", "runs/two/best.pt"], ()) == ["best_1", "best_2"]
    assert labels_of(["a.pt", "b.pt"], ("n", "s")) == ["n", "s"]
    with pytest.raises(UserError, match="contains n twice"):
        labels_of(["a.pt", "b.pt"], ("n", "n"))


def test_references_are_csv_or_json(tmp_path: Path) -> None:
    csv, plain, curve = (tmp_path / name for name in ("r.csv", "r.json", "pareto.json"))
    csv.write_text("Label,ms,mAP50,mAP50-95\nn, 8.5 ,0.5,\ns,20,,0.4\n")
    plain.write_text(json.dumps([{"model": "n", "latency_ms": 3, "mAP": 0.2}]))
    curve.write_text(
        json.dumps({"points": [{"label": "n-50", "ms": 2.0, "mAP50": 0.4, "mAP50_95": 0.2, "file": None}]})
    )
    assert references("") == []
    assert references(str(csv)) == [
        {"label": "n", "ms": 8.5, "mAP50": 0.5, "mAP50_95": None},
        {"label": "s", "ms": 20.0, "mAP50": None, "mAP50_95": 0.4},
    ]
    assert references(str(plain)) == [{"label": "n", "ms": 3.0, "mAP50": None, "mAP50_95": 0.2}]
    assert references(str(curve)) == [{"label": "n-50", "ms": 2.0, "mAP50": 0.4, "mAP50_95": 0.2}]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.csv", "label,ms,mAP\nn,8.5,0.5\ns,,0.4\n", "r.csv, line 3: the label, ms or accuracy is missing"),
        ("r.csv", "label,ms,mAP\nn,fast,0.5\n", "r.csv, line 2: ms is fast; it must be a number"),
        ("r.csv", "label,ms,mAP\nn,nan,0.5\n", "ms is nan"),
        ("r.csv", "label,ms,mAP\nn,0,0.5\n", "ms is 0; it must be positive"),
        ("r.csv", "label,ms,mAP\n", "has no points"),
        ("r.csv", "", "has no points"),
        ("r.json", "{}", "neither a list of points nor an object"),
        ("r.json", "[1]", "neither a list of points nor an object"),
        ("r.json", "[{}]", "r.json, point 1: the label, ms or accuracy is missing"),
        ("r.json", '[{"label": "n", "ms": [1], "mAP": 1}]', "point 1: ms is \\[1\\]"),
        ("r.json", "[", "is not valid JSON"),
    ],
)
def test_a_broken_reference_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        references(str(file))


def test_the_time_left_follows_the_parts_that_are_done() -> None:
    parts = [Part("a", "cut", 2, "cut a"), Part("b", "cut", 1, "cut b"), Part("c", "heal", 1, "heal c")]
    pace, done = Pace(parts), {"a": {"seconds": 600.0}}
    assert pace.line("a", {}) == "[1/3] cut a"
    assert pace.line("b", done) == "[2/3] cut b (over 5 min left)"
    done |= {"b": {"seconds": 300.0}, "c": {"seconds": 60.0}}
    assert pace.left({"a": done["a"], "c": done["c"]}) == "about 5 min left"
    assert pace.left(done) == ""
    assert pace.left({"a": {"seconds": None}}) == ""  # of an interrupted part the seconds say nothing
