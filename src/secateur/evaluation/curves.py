"""Precision, recall and F1 against confidence, and the confidence with the best F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.evaluation.matching import Boxes, Floats, Ints, true_positives

POINTS = 1000
SMOOTHING = 0.1  # width of the box filter, as a share of the confidence axis


@dataclass(frozen=True)
class Operating:
    """Precision, recall and F1 against confidence.

    Attributes:
        confidence: float64 [POINTS], 0 to 1.
        precision, recall, f1: float64 [classes, POINTS] at IoU 0.5.
        best: index on the confidence axis where the smoothed mean F1 is largest.
    """

    confidence: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    best: int


@dataclass(frozen=True)
class Curves(Operating):
    """Curves of the classes with objects; rows in the order of `classes`.

    Attributes:
        recall_axis: float64 [101], 0 to 1.
        precision_at_recall: float64 [classes, 101], the envelope that average precision (IoU 0.5) integrates.
        classes: int64 [classes], class ids.
        names: their names.
        confusion: int64 [nc + 1, nc + 1] counts; rows predicted, columns true, background last.
        all_names: names of all nc classes, for the confusion matrix.
        area: name of the area under the precision-recall curve.
    """

    recall_axis: Floats
    precision_at_recall: Floats
    classes: tuple[int, ...]
    names: tuple[str, ...]
    confusion: Ints
    all_names: tuple[str, ...]
    area: str = "mAP50"


def operating_points(truths: Boxes, detections: Boxes, classes: Ints) -> Operating:
    """Precision, recall and F1 over the confidence for every class in `classes` (int64 [n], each with at least one
    object) at IoU 0.5.

    The confidence of the best F1 is shared by all classes: it maximises the mean over classes, smoothed by a box
    filter.
    """
    flags = true_positives(truths, detections)
    confidence = np.linspace(0, 1, POINTS)
    precision = np.zeros((len(classes), POINTS))
    recall = np.zeros((len(classes), POINTS))
    for row, class_id in enumerate(classes):
        mine = detections.classes == class_id
        if not mine.any():
            continue
        scores = detections.scores[mine]
        order = np.argsort(-scores, kind="stable")
        hits = flags[mine][order].cumsum()
        # np.interp needs increasing x values; the sorted scores decrease, so both axes are negated.
        recall[row] = np.interp(-confidence, -scores[order], hits / (truths.classes == class_id).sum(), left=0)
        precision[row] = np.interp(-confidence, -scores[order], hits / np.arange(1, len(hits) + 1), left=1)
    f1 = 2 * precision * recall / (precision + recall + 1e-16)
    best = int(_smooth(f1.mean(axis=0)).argmax()) if len(classes) else 0
    return Operating(confidence, precision, recall, f1, best)


def _smooth(values: Floats) -> Floats:
    """Box filter over `SMOOTHING` of the axis, float64 [POINTS] -> [POINTS]; the ends are padded with their own
    value.
    """
    width = round(len(values) * SMOOTHING) // 2 * 2 + 1
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
