"""`--classes`: whole commands for some of the classes that weights know, on data sets that have more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import secateur
from commands_run import pruning, sentence
from law_subjects import enliven
from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.families.context import Context, known_data
from secateur.families.detection.split import DetectionSplit
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import only_classes
from secateur.networks.checkpoint import Checkpoint, save_checkpoint

FAST = ["--img", "64", "--workers", "0"]
FEW = ["--statistics-images", "8", "--correction-images", "8", "--rounds", "1", "--no-cliff"]


@pytest.fixture(autouse=True)
def _here(own_folder: None, caplog: pytest.LogCaptureFixture) -> None:
    """Commands write into the test's own folder; what they say is kept."""
    caplog.set_level("INFO", "secateur")


@pytest.fixture
def weights(tiny_weights: Path, tmp_path: Path) -> Path:
    """Of a detector that sees something everywhere."""
    checkpoint = load_checkpoint(tiny_weights)
    detector: Any = checkpoint.build()
    enliven(detector)
    with torch.no_grad():
        for last in detector.head.m:
            last.bias.view(detector.na, -1)[:, 4:] += 3
    save_checkpoint(Checkpoint.of(detector, like=checkpoint), tmp_path / "whole.safetensors")
    return tmp_path / "whole.safetensors"


def summary_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    main([*words, "--json"])
    said = capsys.readouterr().out
    result: dict[str, Any] = json.loads(said[said.index("{") :])
    return result


def names_of(summary: dict[str, Any]) -> list[str]:
    return [row["name"] for row in summary["per_class"]]


def test_a_cut_for_one_class_is_measured_for_it_alone(
    weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = [*pruning(weights, tiny_data, "--flops", "0.8"), *FEW, "--classes", "triangle"]
    summary = summary_of(capsys, *words, "--heal", "--heal-steps", "2", "--heal-batch", "4")
    made = load_checkpoint("runs/prune/exp/pruned.safetensors")
    assert made.names == {0: "triangle"} and [entry.verb for entry in made.history] == ["classes", "prune", "heal"]
    assert [row["stage"] for row in summary["table"]] == ["dense", "cut, no repair", "cut + repair", "healed"]
    assert all([entry["name"] for entry in row["per_class"]] == ["triangle"] for row in summary["table"])
    told = summary["classes"]
    assert told["kept"] == ["triangle"] and told["of"] == 3
    # Shares of budgets are of the narrowed network.
    assert summary["table"][0]["model"]["gflops"] == told["flops"][1] / 1e9 < told["flops"][0] / 1e9
    assert summary["model"]["gflops"] <= 0.8 * told["flops"][1] / 1e9
    assert "labels of the 2 other classes of" in caplog.text and "objects are of the kept classes" in caplog.text


def test_without_a_budget_the_outputs_go_and_nothing_else(
    weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["prune", "--weights", str(weights), *FAST, "--classes", "square,disc"])
    out = capsys.readouterr().out
    assert "classes: square, disc; the outputs of the other class had" in out and "Next:  secateur finetune" in out
    made, expected = (
        load_checkpoint("runs/prune/exp/pruned.safetensors"),
        only_classes(load_checkpoint(weights), [1, 0]),
    )
    assert all(torch.equal(made.tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert made.history[-1].settings["weights"] == str(weights.absolute())


def test_the_kept_classes_keep_their_accuracy(weights: Path, tiny_data: Path) -> None:
    whole = load_checkpoint(weights)
    before = secateur.evaluate(whole, tiny_data, workers=0, image_size=64)
    after = secateur.evaluate(only_classes(whole, ["square"]), tiny_data, workers=0, image_size=64)
    old = next(row for row in before.per_class if row.name == "square")
    assert after.per_class[0].instances == old.instances > 0
    assert after.mAP50 >= old.mAP50 - 1e-9  # fewer boxes compete for the places of an image


def test_images_without_the_classes_are_background(tiny_data: Path) -> None:
    every = load_data_config(tiny_data)
    whole = DetectionSplit.of(every, "train").index
    index = DetectionSplit.of(every.with_classes([2, 0]), "train").index
    assert index.files == whole.files and set(index.labels[:, 0]) == {0, 1}
    for place in range(len(whole)):
        old = whole.labels_of(place)
        kept = old[old[:, 0] != 1].copy()
        kept[:, 0] = np.where(kept[:, 0] == 2, 0, 1)
        np.testing.assert_array_equal(index.labels_of(place), kept)
    assert index.counts.found + index.counts.empty == whole.counts.found + whole.counts.empty
    assert index.counts.found == sum(len(index.labels_of(place)) > 0 for place in range(len(index)))


def test_a_split_without_objects_of_the_classes_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(tiny_data.read_text())
    data = {**data, "path": str(tiny_data.parent), "names": ["disc", "square", "triangle", "star"]}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(data))
    config = load_data_config(tmp_path / "more.yaml").with_classes([3])
    with pytest.raises(UserError, match=r"has an object of the classes that the detector was narrowed to \(star\)"):
        DetectionSplit.of(config, "val")
    assert len(DetectionSplit.of(config, "val", objects=False)) == 8


def test_later_commands_know_it(
    weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    main([*pruning(weights, tiny_data, "--params", "0.8"), *FEW, "--classes", "disc"])
    pruned = "runs/prune/exp/pruned.safetensors"
    summary = summary_of(capsys, "val", "--weights", pruned, "--data", str(tiny_data), *FAST)
    assert names_of(summary) == ["disc"]
    # The teacher is the file of all classes.
    main(["heal", "--weights", pruned, "--data", str(tiny_data), *FAST, "--heal-steps", "2", "--heal-batch", "4"])
    assert "The teacher uses only 1 of its 3 classes, those of the student" in caplog.text
    healed = "runs/heal/exp/healed.safetensors"
    words = ["--data", str(tiny_data), *FAST, "--epochs", "1", "--batch", "8"]
    main(["finetune", "--weights", healed, *words, "--distill", "bce", "--teacher", str(weights)])
    tuned = load_checkpoint("runs/finetune/exp/weights/best.safetensors")
    assert tuned.names == {0: "disc"} and tuned.narrowed and "New head" not in caplog.text
    main(["finetune", "--resume", "runs/finetune/exp"])
    main(["train", "--weights", healed, *words])
    assert "New head for 3 classes (the weights have 1 class)" in caplog.text


def test_an_exported_file_knows_it(weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    save_checkpoint(only_classes(load_checkpoint(weights), ["disc"]), Path("disc.safetensors"))
    main(["export", "--weights", "disc.safetensors", "--img", "64", "--format", "onnx"])
    summary = summary_of(capsys, "val", "--weights", "runs/export/exp/disc.onnx", "--data", str(tiny_data), *FAST)
    assert names_of(summary) == ["disc"]


@pytest.mark.parametrize("where", ["option", "recipe"])
def test_a_run_begins_with_the_classes(
    where: str, weights: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe: dict[str, Any] = {"name": "short", "stages": [{"prune": {"flops": 0.8, "criterion": "l2", "rounds": 1}}]}
    if where == "recipe":
        recipe["classes"] = ["triangle", 0]
    Path("short.yaml").write_text(yaml.safe_dump(recipe))
    words = ["run", "--recipe", "short.yaml", "--weights", str(weights), "--data", str(tiny_data), *FAST]
    main([*words, *(["--classes", "triangle", "disc"] if where == "option" else [])])
    final = load_checkpoint("runs/run/exp/final.safetensors")
    assert final.names == {0: "triangle", 1: "disc"} and "train" not in [entry.verb for entry in final.history]
    summary = json.loads(Path("runs/run/exp/summary.json").read_text())
    assert all([entry["name"] for entry in row["per_class"]] == ["triangle", "disc"] for row in summary["table"])
    assert summary["classes"]["of"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prune --weights WHOLE --classes squar", "There is no class 'squar'. Similar names: 1 square."),
        ("prune --weights WHOLE --classes disc 0", "--classes has 'disc' (class 0) twice. Name each class once."),
        (
            "prune --weights WHOLE --classes 0,1,2",
            "--classes contains all 3 classes of the detector, so there is nothing",
        ),
        ("prune --weights WHOLE --classes disc --heal", "--heal trains a detector after it was cut. Add a budget"),
        ("run --cfg yolov5n --data DATA --classes disc", "--classes narrows a trained detector to some of its classes"),
        ("run --weights WHOLE --data OTHER --classes disc", "has 1 classes, but"),
    ],
)
def test_bad_classes_are_refused_before_anything_is_written(
    words: str, said: str, weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load(tiny_data.read_text())
    other = {**data, "path": str(tiny_data.parent), "names": ["star", "moon", "sun"]}
    Path("other.yaml").write_text(yaml.safe_dump(other))
    places = {"WHOLE": str(weights), "DATA": str(tiny_data), "OTHER": "other.yaml"}
    assert said in sentence(capsys, *(places.get(word, word) for word in words.split()))


def test_a_network_without_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secateur.save(nn.Sequential(nn.Conv2d(3, 8, 3)), tmp_path / "plain.safetensors")
    said = sentence(capsys, "prune", "--weights", str(tmp_path / "plain.safetensors"), "--classes", "disc")
    assert "of the family 'module' cannot be narrowed to some of its classes (--classes)" in said


def test_in_python(weights: Path, tiny_data: Path) -> None:
    whole, folder = load_checkpoint(weights), tiny_data.parent / "images" / "train"
    narrow = secateur.prune(whole, classes="square")
    assert narrow.names == {0: "square"} and narrow.plan is None
    options: Any = {"image_size": 64, "rounds": "1", "statistics_images": 8, "correction_images": 8, "round_to": 1}
    small = secateur.prune(weights, images=folder, classes=["square", 2], flops=0.8, **options)
    assert small.names == {0: "square", 1: "triangle"} and small.plan is not None
    healed = secateur.heal(small, whole, folder, image_size=64, heal_steps=2, heal_batch=4)
    assert healed.names == small.names
    with pytest.raises(TypeError, match="classes is"):
        secateur.prune(whole, classes=[None])  # type: ignore[list-item]
    data = known_data(small, load_data_config(tiny_data))
    assert data.names == small.names and Context(64, data=data).known_to(small).data is data
