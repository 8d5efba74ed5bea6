"""Average precision and recall by COCO's rules, counted by faster-coco-eval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from secateur.evaluation.matching import Boxes, Floats, Ints

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
# Key, wording and place of the twelve numbers: (key, AP or AR, IoU, area, detections of an image and class).
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


@dataclass(frozen=True)
class CocoResult:
    """What one COCO evaluation gives.

    Attributes:
        ap: [10 IoU thresholds, classes], average precision with at most `max_det` detections of an image.
        precision_at_recall: [classes, 101] at IoU 0.5.
        twelve: the twelve numbers by key; empty unless asked for.
    """

    ap: Floats
    precision_at_recall: Floats
    twelve: dict[str, float]


def evaluate_coco(
    truths: Boxes, detections: Boxes, shapes: Ints, classes: Ints, *, max_det: int = 300, twelve: bool = False
) -> CocoResult:
    """Runs COCO's evaluation on boxes held in memory.

    Args:
        truths: the objects, none a crowd; areas are those of their boxes, in pixels of the original image.
        detections: the detector's boxes.
        shapes: [images, 2] height and width.
        classes: ids of the classes that have objects; others do not enter any mean, as in COCO.
        max_det: most detections of an image and class for `ap` (the twelve numbers take COCO's 1, 10 and 100).
        twelve: also compute the twelve numbers (costs the three area ranges).
    """
    images = [{"id": i + 1, "height": int(h), "width": int(w)} for i, (h, w) in enumerate(shapes)]
    categories = [{"id": int(c), "name": str(c)} for c in classes]
    # Detections of classes without objects change nothing; leaving them out saves their dictionaries.
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
    """COCO annotations; ids from 1, because the engine takes 0 for "not matched"."""
    sides = boxes.corners[:, 2:] - boxes.corners[:, :2]
    areas = sides.prod(axis=1).tolist()
    corners = np.concatenate((boxes.corners[:, :2], sides), axis=1).tolist()
    rows = zip(boxes.image.tolist(), boxes.classes.tolist(), corners, areas, boxes.scores.tolist(), strict=True)
    return [
        {"id": n, "image_id": image + 1, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}
        for n, (image, label, box, area, score) in enumerate(rows, start=1)
    ]


def _twelve(precision: Floats, recall: Floats, areas: list[str], limits: list[int]) -> dict[str, float]:
    """COCO's twelve means from precision [IoU, recall, class, area, limit] and recall [IoU, class, area, limit]."""
    thresholds = {"0.50:0.95": slice(None), "0.50": slice(0, 1), "0.75": slice(5, 6)}
    numbers = {}
    for key, kind, iou, area, limit in TWELVE:
        table = precision if kind == "AP" else recall
        values = table[thresholds[iou]][..., areas.index(area), limits.index(limit)]
        values = values[values > -1]  # -1 marks a class without objects of that size
        numbers[key] = float(values.mean()) if values.size else -1.0
    return numbers
