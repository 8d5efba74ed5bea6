"""The detections recorded by a run, and differences between two networks per image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError
from secateur.evaluation.curves import Curves
from secateur.evaluation.metrics import measure
from secateur.evaluation.record import DetectionRecord, record_file
from secateur.report.page.model import RunData, Stage

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
IOU = 0.5
"""Minimum IoU of a match on the page."""


def record_of(run: RunData, stage: Stage | None, split: str = "val") -> DetectionRecord | None:
    """The detections of a stage; None if they were not kept, or if their file is damaged, which is recorded."""
    if stage is None:
        return None
    file = record_file(stage.folder, split)
    if not file.is_file():
        return None
    try:
        return _loaded(file, file.stat().st_mtime_ns)
    except UserError as error:
        if str(error) not in run.unreadable:
            run.unreadable.append(str(error))
        return None


@cache
def _loaded(file: Path, changed: int) -> DetectionRecord:
    """Loads a record once for several sections. `changed` is part of the cache key, so that a changed file is read
    again.
    """
    return DetectionRecord.load(file)


def compared_records(run: RunData) -> list[tuple[str, DetectionRecord]]:
    """The dense network, the last stage and the networks for comparison, if their detections were kept."""
    stages = [run.dense, run.final, *(stage for stage in run.stages if stage.compared)]
    pairs = [(stage, record_of(run, stage)) for stage in stages if stage is not None]
    return [(stage.title, record) for stage, record in pairs if record is not None and len(record)]


def signature_of(run: RunData) -> str:
    """A digest of the evaluated images and objects of a run; "" if no detections were kept."""
    found = (record_of(run, stage) for stage in run.stages)
    return next((record.signature for record in found if record is not None), "")


def curves_of(record: DetectionRecord) -> Curves:
    """Precision and recall curves and the confusion matrix of recorded detections."""
    shapes = record.shapes.astype(np.int64)
    found = measure(record.truths, record.detections, shapes, record.names, max_det=record.max_det, curves=True).curves
    assert isinstance(found, Curves)
    return found


@dataclass(frozen=True)
class Counted:
    """Matches of a network at one confidence and IoU 0.5.

    Attributes:
        hit: bool [detections], whether a detection matches an object; False below the confidence.
        shown: bool [detections], whether a detection reaches the confidence.
        found: bool [objects], whether an object is detected.
    """

    hit: Bools
    shown: Bools
    found: Bools


def counted(record: DetectionRecord, confidence: float) -> Counted:
    """Matches the detections that reach a confidence with the objects."""
    matched = record.matched((IOU,), confidence)
    return Counted(matched.hits[0], np.asarray(record.detections.scores >= confidence), matched.found[0])


def by_class(record: DetectionRecord, confidence: float) -> dict[int, tuple[int, int, int]]:
    """Number of objects, of detections that reach the confidence, and of detected objects, for every class with
    objects.
    """
    found = counted(record, confidence)
    truth, detected = record.truths.classes, record.detections.classes
    return {
        int(number): (
            int((truth == number).sum()),
            int((found.shown & (detected == number)).sum()),
            int((found.found & (truth == number)).sum()),
        )
        for number in np.unique(truth)
    }


def disagreement(first: DetectionRecord, second: DetectionRecord, confidence: float) -> Ints:
    """The difference between two networks per image, int64 [images].

    An object that only one of them detects counts two, each additional false box counts one.
    """
    count = len(first)
    a, b = counted(first, confidence), counted(second, confidence)
    objects = np.bincount(first.truths.image[a.found != b.found], minlength=count)
    spurious = [
        np.bincount(record.detections.image[found.shown & ~found.hit], minlength=count)
        for record, found in ((first, a), (second, b))
    ]
    return np.asarray(2 * objects + np.abs(spurious[0] - spurious[1]), dtype=np.int64)
