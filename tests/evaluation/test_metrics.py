"""Metrics on hand-made boxes whose numbers are known, and against plain references."""

from __future__ import annotations

import json

import numpy as np
import pytest

from secateur.evaluation.coco import COCO91, save_predictions
from secateur.evaluation.matching import Boxes, confusion_matrix, true_positives
from secateur.evaluation.metrics import Metrics, measure

NAMES = {0: "cell", 1: "platelet", 2: "unused"}


def boxes(rows: list[tuple[int, float, float, float, float, int, float]]) -> Boxes:
    """Rows of image, x1, y1, x2, y2, class, score."""
    array = np.asarray(rows, dtype=float).reshape(-1, 7)
    return Boxes(array[:, 0].astype(np.int64), array[:, 1:5], array[:, 5].astype(np.int64), array[:, 6])


def random_boxes(count: int, images: int, classes: int, seed: int) -> Boxes:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 150, (count, 2))
    return Boxes(
        rng.integers(0, images, count),
        np.concatenate((corner, corner + rng.uniform(20, 120, (count, 2))), axis=1),
        rng.integers(0, classes, count),
        rng.random(count),
    )


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.clip(sides, 0, None).prod())
    return common / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - common)


TRUTHS = boxes([(0, 10, 10, 50, 50, 0, 1), (0, 60, 60, 90, 90, 1, 1), (1, 10, 10, 200, 200, 0, 1)])
SHAPES = np.asarray([[240, 320], [240, 320]])


def perfect() -> Metrics:
    found = Boxes(TRUTHS.image, TRUTHS.corners, TRUTHS.classes, np.asarray([0.9, 0.8, 0.7]))
    return measure(TRUTHS, found, SHAPES, NAMES, coco=True, curves=True)


def test_perfect_detections_score_one() -> None:
    metrics = perfect()
    assert metrics.to_dict() == pytest.approx({"P": 1, "R": 1, "mAP50": 1, "mAP50-95": 1})
    assert metrics.fitness == pytest.approx(1)
    assert metrics.coco["AP"] == pytest.approx(1) and metrics.coco["AR100"] == pytest.approx(1)
    assert metrics.coco["APs"] == pytest.approx(1) and metrics.coco["APl"] == pytest.approx(1)
    assert [(c.name, c.images, c.instances) for c in metrics.per_class] == [("cell", 2, 2), ("platelet", 1, 1)]


def test_a_missed_object_halves_the_recall_of_its_class() -> None:
    found = boxes([(0, 10, 10, 50, 50, 0, 0.9), (0, 60, 60, 90, 90, 1, 0.8)])
    cell, platelet = measure(TRUTHS, found, SHAPES, NAMES).per_class
    assert np.allclose([cell.R, platelet.R], [0.5, 1])
    assert cell.mAP50 == pytest.approx(51 / 101)  # COCO integrates 101 recall points


def test_wrong_class_and_second_hit_are_false() -> None:
    found = boxes([(0, 10, 10, 50, 50, 1, 0.9), (1, 10, 10, 200, 200, 0, 0.8), (1, 11, 11, 200, 200, 0, 0.7)])
    assert true_positives(TRUTHS, found).tolist() == [False, True, False]


def test_detections_of_classes_without_objects_change_nothing() -> None:
    found = random_boxes(50, 2, 2, seed=0)
    extra = random_boxes(30, 2, 1, seed=1)
    more = Boxes(
        np.concatenate((found.image, extra.image)),
        np.concatenate((found.corners, extra.corners)),
        np.concatenate((found.classes, np.full(30, 2))),
        np.concatenate((found.scores, extra.scores)),
    )
    assert measure(TRUTHS, found, SHAPES, NAMES).to_dict() == measure(TRUTHS, more, SHAPES, NAMES).to_dict()


def test_matching_agrees_with_the_definition() -> None:
    truths, found = random_boxes(60, 4, 3, seed=2), random_boxes(400, 4, 3, seed=3)
    expected, taken = np.zeros(400, dtype=bool), set()
    for d in np.argsort(-found.scores):
        free = [
            (iou(found.corners[d], truths.corners[t]), -t)
            for t in range(60)
            if truths.image[t] == found.image[d] and truths.classes[t] == found.classes[d] and t not in taken
        ]
        overlap, t = max(free, default=(0.0, 0))
        if overlap >= 0.5:
            expected[d] = True
            taken.add(-t)
    assert np.array_equal(true_positives(truths, found), expected)


def test_recall_agrees_with_the_coco_engine() -> None:
    truths, found = random_boxes(60, 4, 3, seed=4), random_boxes(400, 4, 3, seed=5)
    metrics = measure(truths, found, np.full((4, 2), 300), NAMES, curves=True)
    hits = true_positives(truths, found)
    for row in metrics.per_class:
        recall = hits[found.classes == row.class_id].sum() / row.instances
        assert metrics.curves is not None
        reached = metrics.curves.precision_at_recall[row.class_id] > 0
        assert metrics.curves.recall_axis[reached].max() == pytest.approx(recall, abs=0.01)


def test_confusion_matrix_counts_every_object_and_every_confident_box_once() -> None:
    found = boxes(
        [
            (0, 10, 10, 50, 50, 0, 0.9),  # right
            (0, 60, 60, 90, 90, 0, 0.8),  # a platelet taken for a cell
            (1, 210, 10, 230, 60, 1, 0.7),  # background taken for a platelet
            (1, 10, 10, 200, 200, 0, 0.2),  # too unsure to count: the object is missed
        ]
    )
    matrix = confusion_matrix(TRUTHS, found, 3)
    assert matrix[0].tolist() == [1, 1, 0, 0]
    assert matrix[1].tolist() == [0, 0, 0, 1]
    assert matrix[3].tolist() == [1, 0, 0, 0]
    assert matrix.sum() == 4


def test_no_detections_and_no_objects() -> None:
    nothing = boxes([])
    assert measure(TRUTHS, nothing, SHAPES, NAMES, coco=True, curves=True).to_dict() == {
        "P": 0,
        "R": 0,
        "mAP50": 0,
        "mAP50-95": 0,
    }
    empty = measure(nothing, TRUTHS, SHAPES, NAMES, coco=True, curves=True)
    assert (empty.mAP50, empty.per_class, empty.coco["AP"]) == (0, (), -1)
    assert measure(nothing, nothing, SHAPES, NAMES, curves=True).instances == 0


def test_texts() -> None:
    metrics = perfect()
    header, overall, *rows = metrics.table().splitlines()
    assert header.split() == ["Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95"]
    assert overall.split()[:3] == ["all", "2", "3"] and len(rows) == 2
    lines = metrics.details().splitlines()
    assert len(lines) == 12
    assert lines[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000"
    assert lines[6] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 1.000"
    assert metrics.speed_line().startswith("Speed: 0.0ms pre-process, 0.0ms inference, 0.0ms NMS per image")
    assert json.loads(json.dumps(metrics.summary()))["per_class"][1] == {
        "class": 1, "name": "platelet", "images": 1, "instances": 1, "P": pytest.approx(1), "R": pytest.approx(1),
        "mAP50": pytest.approx(1), "mAP50-95": pytest.approx(1),
    }  # fmt: skip
    assert overall == f"{'all':>22}{2:>11}{3:>11}" + f"{1:>11}" * 4
    assert rows[1] == f"{'platelet':>22}{1:>11}{1:>11}" + f"{1:>11}" * 4


def test_predictions_are_written_as_coco_results(tmp_path) -> None:
    found = boxes([(0, 10, 10, 50, 60, 0, 0.9), (1, 1, 2, 3, 4, 1, 0.25)])
    save_predictions(tmp_path / "a.json", found, ["images/000000000139.jpg", "images/cell_7.png"])
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows[0] == {"image_id": 139, "category_id": 0, "bbox": [10, 10, 40, 50], "score": 0.9}
    assert (rows[1]["image_id"], rows[1]["category_id"]) == ("cell_7", 1)
    save_predictions(tmp_path / "a.json", found, ["1.jpg", "2.jpg"], COCO91)
    assert [row["category_id"] for row in json.loads((tmp_path / "a.json").read_text())] == [1, 2]
    assert len(COCO91) == 80 and COCO91[79] == 90 and COCO91[11] == 13
