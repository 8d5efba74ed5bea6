"""Validation is the package's own: its figures are those of `YOLO(...).val`, and nothing is left next to the images."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import NAMES, SIZE, checkpoint_named, fresh, save

from secateur.cli import main
from secateur.errors import UserError
from secateur.evaluation.settings import NmsSettings, ValSettings
from secateur.families.family import FAMILIES
from secateur.families.loading import load_checkpoint

FAMILY = FAMILIES["ultralytics"]
POINTS = 17
SETTINGS = ValSettings(image_size=SIZE, workers=0)


def saved(name: str, task: str, folder: Path) -> Path:
    """A file of a lively network whose boxes are smaller than an image."""
    model = fresh(name)
    head = model.model[-1]
    for branch in ("cv2", "one2one_cv2"):
        for level in getattr(head, branch, None) or ():
            last = level[-1]
            bins = last.out_channels // 4
            with torch.no_grad():
                last.weight.mul_(0.3)
                last.bias.copy_(torch.ones(4) if bins == 1 else -2.0 * torch.arange(bins).repeat(4))
    return save(model, folder / "x.pt", train_args={"imgsz": SIZE, "task": task})


def rows_of(found: Any, task: str) -> list[list[float]]:
    """What the package saw on an image, as rows of a label file."""
    if task == "obb":
        corners = found.obb.xyxyxyxyn.clamp(0.01, 0.99).reshape(-1, 8)
        return [[int(kind), *row] for kind, row in zip(found.obb.cls, corners.tolist(), strict=True)]
    corners = found.boxes.xyxyn.clamp(0.02, 0.98)
    rows = []
    for place, (x1, y1, x2, y2) in enumerate(corners.tolist()):
        box = [int(found.boxes.cls[place]), (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        if task == "pose":
            points = found.keypoints.xyn[place].clamp(0, 1)
            rows.append([*box, *torch.cat((points, torch.full((POINTS, 1), 2.0)), 1).flatten().tolist()])
        else:
            rows.append([float(value) for value in box])
    return rows


def believed(file: Path, task: str, folder: Path) -> Path:
    """A data set whose labels are what a network sees, so that its figures are far from nought."""
    from ultralytics import YOLO

    generator = np.random.default_rng(0)
    for part in ("images/val", "labels/val"):
        (folder / part).mkdir(parents=True)
    model = YOLO(file)
    for number in range(6):
        image = folder / "images/val" / f"{number}.png"
        sides = (SIZE, SIZE + 16 * (number % 2))
        cv2.imwrite(str(image), generator.integers(0, 256, (*sides, 3), np.uint8))
        if task == "segment":  # the package shows no box whose mask is empty
            rows = [[number % 3, 0.2, 0.2, 0.7, 0.2, 0.7, 0.6, 0.2, 0.6]]
        else:
            found = model.predict(image, imgsz=SIZE, conf=0.001, max_det=6, verbose=False, device="cpu", nms=False)
            rows = rows_of(found[0], task)
        lines = [" ".join(f"{value:.6g}" for value in row) for row in rows]
        (folder / "labels/val" / f"{number}.txt").write_text("\n".join(lines))
    said = {"path": str(folder), "train": "images/val", "val": "images/val", "names": NAMES}
    said |= {"kpt_shape": [POINTS, 3]} if task == "pose" else {}
    (folder / "data.yaml").write_text(yaml.safe_dump(said))
    return folder / "data.yaml"


def theirs(file: Path, data: Path, **more: Any) -> Any:
    from ultralytics import YOLO

    options = {"imgsz": SIZE, "nms": False, "device": "cpu", "workers": 0, "plots": False, "verbose": False, **more}
    return YOLO(file).val(data=str(data), **options)


@pytest.mark.parametrize(
    ("name", "task", "figure"),
    [
        ("yolov8n", "detect", "mAP50-95"),
        ("yolo26n", "detect", "mAP50-95"),
        ("yolov8n-seg", "segment", "mask mAP50-95"),
        ("yolov8n-pose", "pose", "pose mAP50-95"),
        ("yolov8n-obb", "obb", "mAP50-95"),
    ],
)
def test_the_figures_are_those_of_the_package(name: str, task: str, figure: str, tmp_path: Path) -> None:
    file = saved(name, task, tmp_path)
    data = believed(file, task, tmp_path / "data")
    network = load_checkpoint(file).build()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    split = FAMILY.split(FAMILY.open_data(str(data)), "val")
    files = {found.name for found in data.parent.rglob("*")}
    scores = FAMILY.evaluate(network, split, SETTINGS, progress=False)
    assert {found.name for found in data.parent.rglob("*")} == files
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    expected = theirs(file, data)
    assert list(scores.values.values()) == pytest.approx([float(value) for value in expected.mean_results()], abs=1e-6)
    assert scores.figure == figure and (scores.values["mAP50"] > 1e-4 or task == "segment")
    assert scores.counts == {"images": 6, "instances": int(expected.nt_per_class.sum())}
    rows = [dict(row) for row in scores.rows]
    assert [row["class"] for row in rows] == list(expected.ap_class_index)
    assert [row["mAP50"] for row in rows] == pytest.approx([float(value) for value in expected.box.ap50], abs=1e-6)
    assert figure in scores.table() and set(scores.speed_ms) == {"preprocess", "inference", "nms"}


def test_suppression_and_one_class_reach_the_package(tmp_path: Path) -> None:
    file = saved("yolov8n", "detect", tmp_path)
    data = believed(file, "detect", tmp_path / "data")
    network = load_checkpoint(file).build()
    split = FAMILY.split(FAMILY.open_data(str(data)), "val")
    for changes, more in (
        ({"nms": NmsSettings(conf=0.02, iou=0.3, max_det=5)}, {"conf": 0.02, "iou": 0.3, "max_det": 5}),
        ({"single_cls": True}, {"single_cls": True}),
        ({"rectangular": False, "batch_size": 2}, {"rect": False, "batch": 2}),
    ):
        settings = ValSettings(image_size=SIZE, workers=0, **changes)
        scores = FAMILY.evaluate(network, split, settings, progress=False)
        expected = [float(value) for value in theirs(file, data, **more).mean_results()]
        assert list(scores.values.values()) == pytest.approx(expected, abs=1e-6), changes


@dataclass(frozen=True)
class Classed:
    """A split of a classifier's data set."""

    index: Any
    classes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.classes)


def test_a_classifier_is_validated_by_top_1(tmp_path: Path) -> None:
    file = saved("yolov8n-cls", "classify", tmp_path)
    generator, files, classes = np.random.default_rng(0), [], []
    for number in range(9):
        kind = number % 3
        image = tmp_path / "data" / "val" / NAMES[kind] / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (3, 3, 3), np.uint8)
        cv2.imwrite(str(image), cv2.resize(pixels, (80, 64), interpolation=cv2.INTER_NEAREST))
        files.append(str(image))
        classes.append(kind)
    shutil.copytree(tmp_path / "data" / "val", tmp_path / "data" / "train")
    network = checkpoint_named("yolov8n-cls").build()
    split = Classed(SimpleNamespace(files=tuple(files)), tuple(classes))
    with pytest.raises(UserError, match=r"for the task 'detect' needs a data\.yaml as --data"):
        FAMILY.evaluate(checkpoint_named("yolov8n").build(), split, SETTINGS, progress=False)
    scores = FAMILY.evaluate(network, split, SETTINGS, progress=False)
    expected = theirs(file, tmp_path / "data", nms=None)
    assert scores.values == {"top-1": pytest.approx(expected.top1), "top-5": pytest.approx(expected.top5)}
    network.names = {0: "../x", 1: "y/z", 2: "w"}
    assert FAMILY.evaluate(network, split, SETTINGS, progress=False).values == scores.values
    assert scores.figure == "top-1" and scores.counts == {"images": 9} and 0 < scores.value < 1


@pytest.mark.parametrize(("name", "task"), [("yolov8n", "detect"), ("yolo26n", "detect"), ("yolov8n-pose", "pose")])
def test_the_record_has_the_boxes_that_the_package_writes(name: str, task: str, tmp_path: Path) -> None:
    file = saved(name, task, tmp_path)
    split = FAMILY.split(FAMILY.open_data(str(believed(file, task, tmp_path / "data"))), "val")
    settings = dataclasses.replace(SETTINGS, save_json=True, detections=True)
    network = load_checkpoint(file).build()
    scores = FAMILY.evaluate(network, split, settings, folder=tmp_path / "out", progress=False)
    record, rows = scores.detections, json.loads((tmp_path / "out/predictions.json").read_text())
    found = record.detections
    sides = found.corners[:, 2:] - found.corners[:, :2]
    mine = np.column_stack((found.image, found.classes, found.scores, found.corners[:, :2], sides))
    written = [(int(Path(row["file_name"]).stem), row["category_id"] - 1, row["score"], *row["bbox"]) for row in rows]
    theirs = np.array(sorted(written, key=lambda row: row[0]))  # the package reads images of like shape together
    assert len(mine) == len(theirs) > 20 and (record.confidence, record.iou, record.max_det) == (0.001, 0.7, 300)
    np.testing.assert_allclose(mine, theirs, atol=2e-3)
    assert len(record.truths) == len(split.index.labels) and len(record) == 6
    assert FAMILY.evaluate(network, split, SETTINGS, progress=False).detections is None


def test_the_record_of_some_classes_is_in_the_order_of_the_images(tmp_path: Path) -> None:
    file = saved("yolov8n", "detect", tmp_path)
    data = FAMILY.open_data(str(believed(file, "detect", tmp_path / "data")))
    settings, network = dataclasses.replace(SETTINGS, detections=True), load_checkpoint(file).build()
    whole = FAMILY.evaluate(network, FAMILY.split(data, "val"), settings, progress=False).detections
    # The package reads links in a folder of ours here, whose files have other names.
    some = FAMILY.split(data.with_classes(range(3)), "val")
    again = FAMILY.evaluate(network, some, settings, progress=False).detections
    assert again.files == whole.files and np.array_equal(again.detections.corners, whole.detections.corners)


class Runs:
    """What a pickle can carry."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def test_a_cache_of_labels_does_not_run(tmp_path: Path) -> None:
    file = saved("yolov8n", "detect", tmp_path)
    data = believed(file, "detect", tmp_path / "data")
    mark = tmp_path / "ran"
    with (data.parent / "labels/val.cache").open("wb") as cache:
        np.save(cache, np.array(Runs(mark), dtype=object), allow_pickle=True)
    split = FAMILY.split(FAMILY.open_data(str(data)), "val")
    FAMILY.evaluate(checkpoint_named("yolov8n").build(), split, SETTINGS, progress=False)
    assert not mark.exists()


def test_labels_that_the_package_does_not_find_are_no_nought(tmp_path: Path) -> None:
    file = saved("yolov8n", "detect", tmp_path)
    data = believed(file, "detect", tmp_path / "data")
    split = FAMILY.split(FAMILY.open_data(str(data)), "val")
    for place in (data.parent / "labels/val").iterdir():
        place.write_text("")
    with pytest.raises(UserError, match=r"finds no labels for these images. It looks for them in labels/"):
        FAMILY.evaluate(checkpoint_named("yolov8n").build(), split, SETTINGS, progress=False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yolov8n-cls", "for the task 'classify' needs a folder with a folder for each class as --data"),
        ("yolov8n-seg", "These labels are boxes, and a network of Ultralytics for the task 'segment' needs"),
        ("yolov8n-obb", "for the task 'obb' needs a class and four corners in every row"),
    ],
)
def test_labels_of_another_task_are_refused(name: str, words: str, tiny_data: Path) -> None:
    split = FAMILY.split(FAMILY.open_data(str(tiny_data)), "val")
    with pytest.raises(UserError, match=words):
        FAMILY.evaluate(checkpoint_named(name).build(), split, SETTINGS, progress=False)


@pytest.mark.parametrize(
    ("changes", "precision", "words"),
    [({"image_size": (64, 96)}, "fp32", "only on square images"), ({}, "bf16", "validates only in fp32 or fp16")],
)
def test_what_it_does_not_have_is_refused(changes: dict[str, Any], precision: str, words: str, tiny_data: Path) -> None:
    split = FAMILY.split(FAMILY.open_data(str(tiny_data)), "val")
    settings = ValSettings(**{"image_size": SIZE, **changes})
    with pytest.raises(UserError, match=words):
        FAMILY.evaluate(checkpoint_named("yolov8n").build(), split, settings, precision=precision)


def test_the_command_prints_only_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = saved("yolov8n-seg", "segment", tmp_path)
    data = believed(file, "segment", tmp_path / "data")
    capfd.readouterr()
    main(["val", "--weights", str(file), "--data", str(data), "--device", "cpu", "--json"])
    said = json.loads(capfd.readouterr().out)
    assert "mask mAP50" in said["metrics"] and [row["instances"] for row in said["per_class"]] == [2, 2, 2]
    assert (Path(said["folder"]) / "MaskPR_curve.png").is_file()
