"""Average precision and recall by COCO's rules, computed by faster-coco-eval; export of detections as COCO results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from secateur.evaluation.matching import Boxes, Floats, Ints
from secateur.files import atomic_write

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
# Key, wording and parameters of COCO's twelve metrics: (key, AP or AR, IoU, area, detections per image and class).
TWELVE = (
    ("AP", "AP", "0.50:0.95", "all", 100),
    ("AP50", "AP", "0.50", "all", 100),
    ("AP75", "AP", "0.75", "all", 100),
    ("APs", "AP", "0.50:0.95", "small", 100),
    ("APm", "AP", "0.50:0.95", "medium", 100),
    ("APl", "AP", "0.50:0.95", "large", 100),
    ("AR1", "AR", "0.50:0.95", "all", 1),
    ("AR10", "AR", "0.50:0.95", "all", 10),
    ("AR100", "AR", "0.50:0.95", "all", 100),
    ("ARs", "AR", "0.50:0.95", "small", 100),
    ("ARm", "AR", "0.50:0.95", "medium", 100),
    ("ARl", "AR", "0.50:0.95", "large", 100),
)
# COCO's category ids of the 80 classes: its numbering runs to 90 with ten gaps.
_COCO91_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO91 = dict(enumerate(n for n in range(1, 91) if n not in _COCO91_GAPS))


@dataclass(frozen=True)
class CocoResult:
    """The result of one COCO evaluation.

    Attributes:
        ap: float64 [10 IoU thresholds, classes], average precision with at most `max_det` detections per image.
        precision_at_recall: float64 [classes, 101] at IoU 0.5.
        twelve: COCO's twelve metrics by key; empty unless requested.
    """

    ap: Floats
    precision_at_recall: Floats
    twelve: dict[str, float]


def evaluate_coco(
    truths: Boxes, detections: Boxes, shapes: Ints, classes: Ints, *, max_det: int = 300, twelve: bool = False
) -> CocoResult:
    """Runs COCO's evaluation on boxes in memory.

    Args:
        truths: the objects, none of them crowds; areas are those of the boxes, in pixels of the original image.
        detections: the detected boxes.
        shapes: int [images, 2], height and width.
        classes: int [n], ids of the classes with objects; other classes are excluded from all means, as in COCO.
        max_det: maximum number of detections per image and class for `ap`; the twelve metrics use COCO's 1, 10 and 100.
        twelve: whether to compute the twelve metrics too, which adds three area ranges.
    """
    images = [{"id": i + 1, "height": int(h), "width": int(w)} for i, (h, w) in enumerate(shapes)]
    categories = [{"id": int(c), "name": str(c)} for c in classes]
    # Detections of classes without objects do not affect the result; skipping them saves memory.
    detections = detections.where(np.isin(detections.classes, classes))
    engine = COCOeval_faster(
        COCO({"images": images, "annotations": _annotations(truths), "categories": categories}),
        COCO({"images": images, "annotations": _annotations(detections), "categories": categories}),
        "bbox",
    )
    areas = list(AREAS) if twelve else ["all"]
    engine.params.areaRng = [list(AREAS[area]) for area in areas]
    engine.params.areaRngLbl = areas
    limits = sorted({1, 10, 100, max_det}) if twelve else [max_det]
    engine.params.maxDets = limits
    engine.evaluate()
    engine.accumulate()
    precision, recall = np.asarray(engine.eval["precision"]), np.asarray(engine.eval["recall"])
    mine = precision[:, :, :, 0, limits.index(max_det)]  # [IoU, recall, class]
    numbers = _twelve(precision, recall, areas, limits) if twelve else {}
    return CocoResult(mine.mean(axis=1), mine[0].T, numbers)


def _annotations(boxes: Boxes) -> list[dict[str, Any]]:
    """COCO annotations. Ids start at 1, because 0 means "not matched" in the engine."""
    sides = boxes.corners[:, 2:] - boxes.corners[:, :2]
    areas = sides.prod(axis=1).tolist()
    corners = np.concatenate((boxes.corners[:, :2], sides), axis=1).tolist()
    rows = zip(boxes.image.tolist(), boxes.classes.tolist(), corners, areas, boxes.scores.tolist(), strict=True)
    return [
        {"id": n, "image_id": image + 1, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}
        for n, (image, label, box, area, score) in enumerate(rows, start=1)
    ]


def _twelve(precision: Floats, recall: Floats, areas: list[str], limits: list[int]) -> dict[str, float]:
    """COCO's twelve means from precision float64 [IoU, recall, class, area, limit] and recall float64 [IoU, class,
    area, limit].
    """
    thresholds = {"0.50:0.95": slice(None), "0.50": slice(0, 1), "0.75": slice(5, 6)}
    numbers = {}
    for key, kind, iou, area, limit in TWELVE:
        table = precision if kind == "AP" else recall
        values = table[thresholds[iou]][..., areas.index(area), limits.index(limit)]
        values = values[values > -1]  # -1 marks a class without objects of that size
        numbers[key] = float(values.mean()) if values.size else -1.0
    return numbers


def save_predictions(
    path: str | Path, detections: Boxes, files: Sequence[str], categories: Mapping[int, int] | None = None
) -> None:
    """Writes detections as COCO results: a list of image_id, category_id, bbox (x, y, width, height), score.

    Args:
        path: the JSON file.
        detections: boxes in pixels of the original images.
        files: image file of each image number; `image_id` is the file's stem, as a number if it is numeric.
        categories: category id of each class id (`COCO91` for COCO's numbering); None writes class ids.

    Raises:
        UserError: the file cannot be written.
    """
    stems = [Path(file).stem for file in files]
    ids = [int(stem) if stem.isascii() and stem.isdecimal() else stem for stem in stems]
    rows = [
        {
            "image_id": ids[image],
            "category_id": categories.get(label, label) if categories else label,
            "bbox": [round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)],
            "score": round(score, 5),
        }
        for image, label, (x1, y1, x2, y2), score in zip(
            detections.image.tolist(),
            detections.classes.tolist(),
            detections.corners.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")
