"""The numbers of an evaluation: precision, recall, mAP, COCO's table, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secateur.evaluation.coco import TWELVE, CocoResult, evaluate_coco
from secateur.evaluation.curves import Curves, Operating, operating_points
from secateur.evaluation.matching import Boxes, Ints, confusion_matrix


@dataclass(frozen=True)
class ClassMetrics:
    """The numbers of one class; `images` counts the images that hold at least one object of it."""

    class_id: int
    name: str
    images: int
    instances: int
    P: float
    R: float
    mAP50: float  # noqa: N815
    mAP50_95: float  # noqa: N815


@dataclass(frozen=True)
class Metrics:
    """What a validation measures.

    Attributes:
        P, R: mean precision and recall over classes, IoU 0.5, at the confidence of best mean F1.
        mAP50, mAP50_95: COCO's average precision at IoU 0.5, and its mean over IoU 0.5 to 0.95, mean over the classes
            that have objects.
        per_class: the same for each class that has objects.
        images, instances: size of the ground truth.
        coco: COCO's twelve numbers by key (`AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `AR1`, `AR10`, `AR100`, `ARs`,
            `ARm`, `ARl`); empty unless asked for; -1 where no object has that size.
        speed_ms: milliseconds an image for `preprocess`, `inference`, `nms`.
        shape: shape of the largest batch that ran (batch, channels, height, width).
        curves: for plots; None unless asked for.
    """

    P: float
    R: float
    mAP50: float  # noqa: N815
    mAP50_95: float  # noqa: N815
    per_class: tuple[ClassMetrics, ...]
    images: int
    instances: int
    coco: dict[str, float] = field(default_factory=dict)
    speed_ms: dict[str, float] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    curves: Curves | None = None

    @property
    def fitness(self) -> float:
        """What the best checkpoint is chosen by: 0.1 mAP50 + 0.9 mAP50-95, as in YOLOv5."""
        return 0.1 * self.mAP50 + 0.9 * self.mAP50_95

    def to_dict(self) -> dict[str, float]:
        """The four numbers under the names of YOLOv5's tables."""
        return {"P": self.P, "R": self.R, "mAP50": self.mAP50, "mAP50-95": self.mAP50_95}

    def per_class_rows(self) -> list[dict[str, Any]]:
        """One plain dictionary a class, for JSON."""
        return [
            {
                "class": row.class_id,
                "name": row.name,
                "images": row.images,
                "instances": row.instances,
                "P": row.P,
                "R": row.R,
                "mAP50": row.mAP50,
                "mAP50-95": row.mAP50_95,
            }
            for row in self.per_class
        ]

    def table(self, per_class: bool = True) -> str:
        """The table that YOLOv5 prints: a row for all classes, then one a class."""
        lines = [f"{'Class':>22}{'Images':>11}{'Instances':>11}{'P':>11}{'R':>11}{'mAP50':>11}{'mAP50-95':>11}"]
        lines.append(_row("all", self.images, self.instances, self.P, self.R, self.mAP50, self.mAP50_95))
        if per_class and len(self.per_class) > 1:
            lines += [_row(c.name, c.images, c.instances, c.P, c.R, c.mAP50, c.mAP50_95) for c in self.per_class]
        return "\n".join(lines)

    def coco_table(self) -> str:
        """COCO's twelve lines; empty when the twelve numbers were not computed."""
        words = {"AP": "Average Precision", "AR": "Average Recall"}
        row = " {:<18} ({}) @[ IoU={:<9} | area={:>6} | maxDets={:>3} ] = {:.3f}"
        return "\n".join(
            row.format(words[kind], kind, iou, area, limit, self.coco[key])
            for key, kind, iou, area, limit in TWELVE
            if key in self.coco
        )

    def speed_line(self) -> str:
        """Milliseconds an image of each phase, in YOLOv5's words."""
        speed = {phase: self.speed_ms.get(phase, 0.0) for phase in ("preprocess", "inference", "nms")}
        return (
            f"Speed: {speed['preprocess']:.1f}ms pre-process, {speed['inference']:.1f}ms inference, "
            f"{speed['nms']:.1f}ms NMS per image at shape {self.shape}"
        )


def _row(name: str, images: int, instances: int, *values: float) -> str:
    name = name if len(name) <= 22 else name[:21] + "…"
    return f"{name:>22}{images:>11}{instances:>11}" + "".join(f"{value:>11.3g}" for value in values)


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
        detections: the detector's boxes.
        shapes: int [images, 2], height and width of each original image in pixels.
        names: class names by id.
        max_det: most detections of an image that count.
        coco: also compute COCO's twelve numbers.
        curves: also keep the curves and the confusion matrix.

    Returns:
        the metrics; all zero when there are no objects.
    """
    classes = np.unique(truths.classes)
    if classes.size:
        result = evaluate_coco(truths, detections, shapes, classes, max_det=max_det, twelve=coco)
    else:
        result = CocoResult(np.zeros((10, 0)), np.zeros((0, 101)), {row[0]: -1.0 for row in TWELVE} if coco else {})
    points = operating_points(truths, detections, classes)
    per_class = _per_class(truths, classes, names, points, result)
    return Metrics(
        P=_mean([c.P for c in per_class]),
        R=_mean([c.R for c in per_class]),
        mAP50=_mean([c.mAP50 for c in per_class]),
        mAP50_95=_mean([c.mAP50_95 for c in per_class]),
        per_class=per_class,
        images=len(shapes),
        instances=len(truths),
        coco=result.twelve,
        curves=_curves(truths, detections, classes, names, points, result) if curves else None,
    )


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
        confidence=points.confidence,
        precision=points.precision,
        recall=points.recall,
        f1=points.f1,
        best=points.best,
        recall_axis=np.linspace(0, 1, 101),
        precision_at_recall=result.precision_at_recall,
        classes=tuple(int(c) for c in classes),
        names=tuple(names.get(int(c), str(c)) for c in classes),
        confusion=confusion_matrix(truths, detections, count),
        all_names=tuple(names.get(c, str(c)) for c in range(count)),
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
