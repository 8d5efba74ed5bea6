"""The images on which two detectors disagree, counted on boxes made by hand."""

from __future__ import annotations

import numpy as np

from secateur.evaluation.matching import Boxes
from secateur.evaluation.record import DetectionRecord
from secateur.evaluation.settings import NmsSettings
from secateur.report.disagreement import Disagreement, disagreements


def boxes(rows: list[tuple[float, ...]]) -> Boxes:
    """Rows of image, x (of a box of 10 by 10 px), class, score."""
    array = np.asarray(rows, dtype=float).reshape(-1, 4)
    corners = np.stack((array[:, 1], 0 * array[:, 1], array[:, 1] + 10, 0 * array[:, 1] + 10), axis=1)
    return Boxes(array[:, 0].astype(np.int64), corners, array[:, 2].astype(np.int64), array[:, 3])


TRUTHS = boxes([(0, 0, 0, 1), (0, 20, 0, 1), (1, 0, 1, 1), (2, 0, 0, 1)])


def record(found: Boxes) -> DetectionRecord:
    files = ["a.jpg", "b.jpg", "c.jpg"]
    return DetectionRecord.of(files, np.full((3, 2), 200, np.int32), TRUTHS, found, {0: "x", 1: "y"}, NmsSettings())


def test_objects_and_false_boxes_of_only_one_are_counted() -> None:
    one = record(boxes([(0, 0, 0, 0.9), (0, 20, 0, 0.9), (0, 100, 0, 0.8), (1, 0, 1, 0.5), (2, 50, 0, 0.9)]))
    two = record(
        boxes([(0, 21, 0, 0.4), (0, 101, 0, 0.3), (0, 0, 0, 0.2), (1, 0, 0, 0.6), (2, 0, 0, 0.3), (2, 51, 0, 0.3)])
    )
    there, back = disagreements(one, two), disagreements(two, one)
    # The false box at 100 is in both; on image 1 the second one names another class.
    assert there == [Disagreement(1, 1, 0, 0, 1), Disagreement(0, 1, 0, 0, 0), Disagreement(2, 0, 1, 0, 0)]
    assert [(row.image, row.lost, row.gained, row.removed, row.added) for row in back] == [
        (1, 0, 1, 1, 0), (0, 0, 1, 0, 0), (2, 1, 0, 0, 0)
    ]  # fmt: skip
    assert there[0].words() == "1 lost, 1 false added" and there[0].count == 2
    assert [row.image for row in disagreements(one, two, confidence=0.1)] == [1, 2]
    assert disagreements(one, one) == []
