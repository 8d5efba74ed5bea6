"""Matches detections to objects, for precision, recall and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Boxes:
    """Boxes of many images in flat arrays.

    Attributes:
        image: int64 [n], image number of each box, from 0.
        corners: float64 [n, 4], x1, y1, x2, y2 in pixels of the original image.
        classes: int64 [n], class ids.
        scores: float64 [n]; ones for ground truth.
    """

    image: Ints
    corners: Floats
    classes: Ints
    scores: Floats

    def __len__(self) -> int:
        return len(self.image)

    def where(self, mask: NDArray[np.bool_]) -> Boxes:
        """The boxes selected by a mask, bool [n]."""
        return Boxes(self.image[mask], self.corners[mask], self.classes[mask], self.scores[mask])


def matches(
    truths: Boxes, detections: Boxes, thresholds: Sequence[float], ignored: NDArray[np.bool_] | None = None
) -> Ints:
    """The object of the same image and class that each detection matches, by COCO's rule.

    Detections are processed in order of their score. Each one takes the free object with the largest overlap, if the
    IoU reaches the threshold.

    Args:
        truths: the objects.
        detections: the detected boxes.
        thresholds: minimum IoU of a match.
        ignored: bool [objects], objects that a detection takes only if it matches no other.

    Returns:
        int64 [thresholds, detections], indices of objects, -1 without a match.
    """
    width = 1 + int(max(truths.classes.max(initial=0), detections.classes.max(initial=0)))
    detection, truth, overlap = _overlaps(
        detections.image * width + detections.classes,
        detections.corners,
        truths.image * width + truths.classes,
        truths.corners,
        min(thresholds),
    )
    last = np.zeros(len(truth), dtype=bool) if ignored is None else ignored[truth]
    # With equal overlaps, COCO's engine takes the last one.
    order = np.lexsort((-truth, -overlap, last, detection, -detections.scores[detection]))
    detection, truth, overlap = detection[order], truth[order], overlap[order]
    found = np.full((len(thresholds), len(detections)), -1, dtype=np.int64)
    for row, threshold in zip(found, thresholds, strict=True):
        enough = np.flatnonzero(overlap >= threshold)
        chosen = enough[_take_first(detection[enough], truth[enough])]
        row[detection[chosen]] = truth[chosen]
    return found


def true_positives(truths: Boxes, detections: Boxes, threshold: float = 0.5) -> NDArray[np.bool_]:
    """Whether each detection matches an object of its class, see `matches`: bool [detections]."""
    return np.asarray(matches(truths, detections, (threshold,))[0] >= 0)


def confusion_matrix(
    truths: Boxes, detections: Boxes, classes: int, conf: float = 0.25, threshold: float = 0.45
) -> Ints:
    """Counts of predicted class (row) against true class (column); the last row and column are background.

    Boxes are matched by overlap, independent of their classes, largest overlap first.

    Args:
        truths: the objects.
        detections: the detected boxes; those below `conf` are ignored.
        classes: number of classes.
        conf: confidence threshold.
        threshold: minimum IoU of a match.

    Returns:
        int64 [classes + 1, classes + 1].
    """
    detections = detections.where(detections.scores > conf)
    detection, truth, overlap = _overlaps(detections.image, detections.corners, truths.image, truths.corners, threshold)
    order = np.argsort(-overlap, kind="stable")
    detection, truth = detection[order], truth[order]
    chosen = _take_first(detection, truth)
    predicted = np.full(len(truths), classes)
    predicted[truth[chosen]] = detections.classes[detection[chosen]]
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(matrix, (predicted, truths.classes), 1)
    spurious = np.ones(len(detections), dtype=bool)
    spurious[detection[chosen]] = False
    matrix[:, classes] += np.bincount(detections.classes[spurious], minlength=classes + 1)
    return matrix


def _overlaps(
    left_group: Ints, left: Floats, right_group: Ints, right: Floats, threshold: float
) -> tuple[Ints, Ints, Floats]:
    """All pairs of left and right boxes of one group whose IoU reaches the threshold, computed without a loop over
    groups.

    Args:
        left_group, right_group: int64 [n] and [m], group of each box.
        left, right: float64 [n, 4] and [m, 4], corners.
        threshold: minimum IoU.

    Returns:
        int64 [pairs] indices of the left boxes, the same of the right boxes, and float64 [pairs] IoU.
    """
    order = np.argsort(left_group, kind="stable")
    ordered = left_group[order]
    first = np.searchsorted(ordered, right_group, side="left")
    count = np.searchsorted(ordered, right_group, side="right") - first
    b = np.repeat(np.arange(len(right_group)), count)
    within = np.arange(len(b)) - np.repeat(np.cumsum(count) - count, count)
    a = order[np.repeat(first, count) + within]
    overlap = _iou(left[a], right[b])
    enough = overlap >= threshold
    return a[enough], b[enough], overlap[enough]


def _iou(a: Floats, b: Floats) -> Floats:
    """float64 [n] IoU of the boxes a[i] and b[i], both [n, 4] corners; computed from sides, with the rounding of COCO's
    engine.
    """
    sides_a, sides_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    common = np.minimum(a[:, :2] + sides_a, b[:, :2] + sides_b) - np.maximum(a[:, :2], b[:, :2])
    common = common.clip(min=0).prod(axis=1)
    union = sides_a.prod(axis=1) + sides_b.prod(axis=1) - common
    return np.asarray(common / np.maximum(union, 1e-12), dtype=np.float64)


def _take_first(a: Ints, b: Ints) -> Ints:
    """Indices of the pairs that remain if pairs (int64 [pairs] each) are taken in order and no member is taken
    twice.
    """
    used_a: set[int] = set()
    used_b: set[int] = set()
    chosen = []
    for position, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            chosen.append(position)
    return np.asarray(chosen, dtype=np.int64)
