"""Images on which two detectors disagree: objects found by only one of them, and false boxes of only one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.evaluation.matching import Boxes, matches
from secateur.evaluation.record import DetectionRecord

CONFIDENCE = 0.25
"""Default confidence threshold."""
_OVERLAP = 0.5


@dataclass(frozen=True)
class Disagreement:
    """The differences between a reference and another detector on one image.

    Attributes:
        image: index in the records.
        lost: objects found only by the reference.
        gained: objects found only by the other.
        removed: boxes without an object that only the reference predicts.
        added: boxes without an object that only the other predicts.
    """

    image: int
    lost: int
    gained: int
    removed: int
    added: int

    @property
    def count(self) -> int:
        """Number of all differences."""
        return self.lost + self.gained + self.removed + self.added

    def words(self) -> str:
        """The counts that are not zero, as text."""
        named = {
            "lost": self.lost,
            "gained": self.gained,
            "false removed": self.removed,
            "false added": self.added,
        }
        return ", ".join(f"{count} {name}" for name, count in named.items() if count)


def disagreements(
    reference: DetectionRecord, other: DetectionRecord, confidence: float = CONFIDENCE
) -> list[Disagreement]:
    """Images on which two detectors disagree, largest disagreement first. Boxes and objects are matched at an IoU of
    0.5.

    Args:
        reference, other: records of the same images and objects, see `evaluation.bootstrap.check_alike`.
        confidence: confidence threshold.
    """
    images = len(reference)
    mine, theirs = (record.matched((_OVERLAP,), confidence) for record in (reference, other))
    objects, found, also = reference.truths.image, mine.found[0], theirs.found[0]
    false, others = (_false(record, confidence) for record in (reference, other))
    pairs = matches(false, others, (_OVERLAP,))[0]
    removed = np.ones(len(false), dtype=bool)
    removed[pairs[pairs >= 0]] = False
    counts = [
        np.bincount(of, minlength=images)
        for of in (objects[found & ~also], objects[also & ~found], false.image[removed], others.image[pairs < 0])
    ]
    rows = (Disagreement(image, *map(int, row)) for image, row in enumerate(zip(*counts, strict=True)))
    return sorted((row for row in rows if row.count), key=lambda row: -row.count)


def _false(record: DetectionRecord, confidence: float) -> Boxes:
    found = record.detections
    seen = (found.corners[:, 2:] > found.corners[:, :2]).all(axis=1)  # clipped boxes may be empty
    return found.where(seen & (found.scores >= confidence) & ~record.matched((_OVERLAP,), confidence).hits[0])
