"""The images on which two detectors disagree: objects that only one of them finds, and false boxes of only one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.evaluation.matching import Boxes, matches
from secateur.evaluation.record import DetectionRecord

CONFIDENCE = 0.25
"""Lowest confidence of a box that counts, where nothing else is asked for."""
_OVERLAP = 0.5


@dataclass(frozen=True)
class Disagreement:
    """How two detectors, a reference and another one, differ on one image.

    Attributes:
        image: its number in the records.
        lost: objects that only the reference finds.
        gained: objects that only the other finds.
        removed: boxes without an object that only the reference has.
        added: boxes without an object that only the other has.
    """

    image: int
    lost: int
    gained: int
    removed: int
    added: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.lost + self.gained + self.removed + self.added

    def words(self) -> str:
        """The counts that are not zero."""
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
    """The images on which two detectors disagree, most first; boxes and objects are paired at an IoU of 0.5.

    Args:
        reference, other: of the same images and objects, see `evaluation.bootstrap.check_alike`.
        confidence: lowest one of a box that counts.
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
    seen = (found.corners[:, 2:] > found.corners[:, :2]).all(axis=1)  # boxes outside the image were clipped to nothing
    return found.where(seen & (found.scores >= confidence) & ~record.matched((_OVERLAP,), confidence).hits[0])
