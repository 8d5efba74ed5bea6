"""Detection metrics: precision, recall, mAP, COCO's table, and their printed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secateur.evaluation.coco import TWELVE, CocoResult, evaluate_coco
from secateur.evaluation.curves import Curves, Operating, operating_points
from secateur.evaluation.matching import Boxes, Ints, confusion_matrix
from secateur.scores import Scores

COLUMNS = {
    "P": "metrics/precision",
    "R": "metrics/recall",
    "mAP50": "metrics/mAP_0.5",
    "mAP50-95": "metrics/mAP_0.5:0.95",
}


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class; `images` is the number of images with at least one object of it."""

    class_id: int
    name: str
    images: int
    instances: int
    P: float
    R: float
    mAP50: float  # noqa: N815
    mAP50_95: float  # noqa: N815

    def to_dict(self) -> dict[str, Any]:
        """A row of `Scores.rows`."""
        return {
            "class": self.class_id,
            "name": self.name,
            "images": self.images,
            "instances": self.instances,
            "P": self.P,
            "R": self.R,
            "mAP50": self.mAP50,
            "mAP50-95": self.mAP50_95,
        }


@dataclass(frozen=True)
class Metrics(Scores):
    """The metrics of a detection validation; create them with `of`.

    mAP50-95 is the main metric. Networks that were cut but not trained afterwards are compared by mAP50: their boxes
    are too inaccurate for mAP50-95 to be informative.

    Attributes:
        per_class: metrics of each class with objects.
        coco: COCO's twelve metrics by key (`AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `AR1`, `AR10`, `AR100`, `ARs`,
            `ARm`, `ARl`); empty unless requested; -1 if no object has that size.
        shape: shape of the largest batch (batch, channels, height, width).
    """

    per_class: tuple[ClassMetrics, ...] = ()
    coco: Mapping[str, float] = field(default_factory=dict)
    shape: tuple[int, ...] = ()

    @staticmethod
    def of(
        per_class: tuple[ClassMetrics, ...],
        images: int,
        instances: int,
        coco: Mapping[str, float] | None = None,
        curves: Curves | None = None,
    ) -> Metrics:
        """The metrics of all classes: means over the classes with objects. `images` and `instances` are total numbers.

        The names are those of YOLOv5's tables and of its results.csv.
        """
        return Metrics(
            "mAP50-95",
            {
                "P": _mean([c.P for c in per_class]),
                "R": _mean([c.R for c in per_class]),
                "mAP50": _mean([c.mAP50 for c in per_class]),
                "mAP50-95": _mean([c.mAP50_95 for c in per_class]),
            },
            coarse="mAP50",
            columns=COLUMNS,
            counts={"images": images, "instances": instances},
            rows=tuple(row.to_dict() for row in per_class),
            curves=curves,
            per_class=per_class,
            coco=coco or {},
        )

    @property
    def P(self) -> float:  # noqa: N802
        """Mean precision over classes at IoU 0.5, at the confidence with the best mean F1."""
        return self.values["P"]

    @property
    def R(self) -> float:  # noqa: N802
        """Mean recall over classes at IoU 0.5, at the confidence with the best mean F1."""
        return self.values["R"]

    @property
    def mAP50(self) -> float:  # noqa: N802
        """COCO's average precision at IoU 0.5, averaged over the classes with objects."""
        return self.values["mAP50"]

    @property
    def mAP50_95(self) -> float:  # noqa: N802
        """COCO's average precision averaged over IoU 0.5 to 0.95 and over the classes with objects."""
        return self.values["mAP50-95"]

    @property
    def images(self) -> int:
        """Number of evaluated images."""
        return self.counts["images"]

    @property
    def instances(self) -> int:
        """Number of objects in them."""
        return self.counts["instances"]

    @property
    def fitness(self) -> float:
        """0.1 mAP50 + 0.9 mAP50-95, as in YOLOv5."""
        return 0.1 * self.mAP50 + 0.9 * self.mAP50_95

    def details(self) -> str:
        """COCO's twelve lines; empty if the twelve metrics were not computed."""
        words = {"AP": "Average Precision", "AR": "Average Recall"}
        row = " {:<18} ({}) @[ IoU={:<9} | area={:>6} | maxDets={:>3} ] = {:.3f}"
        return "\n".join(
            row.format(words[kind], kind, iou, area, limit, self.coco[key])
            for key, kind, iou, area, limit in TWELVE
            if key in self.coco
        )

    def speed_line(self) -> str:
        """Milliseconds per image of each phase, in YOLOv5's format."""
        speed = {phase: self.speed_ms.get(phase, 0.0) for phase in ("preprocess", "inference", "nms")}
        return (
            f"Speed: {speed['preprocess']:.1f}ms pre-process, {speed['inference']:.1f}ms inference, "
            f"{speed['nms']:.1f}ms NMS per image at shape {self.shape}"
        )

    def summary(self) -> dict[str, Any]:
        """The summary, with COCO's metrics if they were computed."""
        return super().summary() | ({"coco": dict(self.coco)} if self.coco else {})


def measure(
    truths: Boxes,
    detections: Boxes,
    shapes: Ints,
    names: Mapping[int, str],
    *,
    max_det: int = 300,
    coco: bool = False,
    curves: bool = False,
) -> Metrics:
    """Compares detections with the objects.

    Args:
        truths: the objects; class ids are keys of `names`.
        detections: the detected boxes.
        shapes: int [images, 2], height and width of each original image in pixels.
        names: class names by id.
        max_det: maximum number of detections per image.
        coco: whether to compute COCO's twelve metrics too.
        curves: whether to keep the curves and the confusion matrix too.

    Returns:
        the metrics; all zero if there are no objects.
    """
    classes = np.unique(truths.classes)
    if classes.size:
        result = evaluate_coco(truths, detections, shapes, classes, max_det=max_det, twelve=coco)
    else:
        result = CocoResult(np.zeros((10, 0)), np.zeros((0, 101)), {row[0]: -1.0 for row in TWELVE} if coco else {})
    points = operating_points(truths, detections, classes)
    per_class = _per_class(truths, classes, names, points, result)
    drawn = _curves(truths, detections, classes, names, points, result) if curves else None
    return Metrics.of(per_class, len(shapes), len(truths), result.twelve, drawn)


def _per_class(
    truths: Boxes, classes: Ints, names: Mapping[int, str], points: Operating, result: CocoResult
) -> tuple[ClassMetrics, ...]:
    return tuple(
        ClassMetrics(
            class_id=int(c),
            name=names.get(int(c), str(c)),
            images=len(np.unique(truths.image[truths.classes == c])),
            instances=int((truths.classes == c).sum()),
            P=float(points.precision[row, points.best]),
            R=float(points.recall[row, points.best]),
            mAP50=float(result.ap[0, row]),
            mAP50_95=float(result.ap[:, row].mean()),
        )
        for row, c in enumerate(classes)
    )


def _curves(
    truths: Boxes,
    detections: Boxes,
    classes: Ints,
    names: Mapping[int, str],
    points: Operating,
    result: CocoResult,
) -> Curves:
    count = 1 + max([*names, *detections.classes.tolist(), *classes.tolist()], default=-1)
    return Curves(
        **vars(points),
        recall_axis=np.linspace(0, 1, 101),
        precision_at_recall=result.precision_at_recall,
        classes=tuple(int(c) for c in classes),
        names=tuple(names.get(int(c), str(c)) for c in classes),
        confusion=confusion_matrix(truths, detections, count),
        all_names=tuple(names.get(c, str(c)) for c in range(count)),
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
