"""Agreement of two detectors: how similar their boxes are on images without labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.data.index import Index
from secateur.errors import UserError
from secateur.evaluation.matching import Boxes
from secateur.evaluation.metrics import Metrics
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import boxes_of, validate
from secateur.families.detection.own_labels import CONFIDENCE

LEAST = 0.01
"""Minimum side in pixels: a box clipped to zero size at the image border has no overlap with any box, not even
itself."""


def agreement(
    dense: Predictor, other: Predictor, index: Index, settings: ValSettings, *, progress: bool = True
) -> Metrics:
    """Average precision of a detector, with the boxes of the dense detector above a confidence of 0.25 as labels.

    A detector that finds the same boxes, with higher confidence than all other boxes, scores 1.

    Args:
        index: the images; labels are not read.

    Raises:
        UserError: the dense detector finds nothing on the images.
    """
    plain = replace(settings, coco=False, plots=False, save_json=False)
    sure = replace(plain, nms=replace(plain.nms, conf=CONFIDENCE))
    found = boxes_of(dense, index, sure, progress=progress)
    found = found.where(np.min(found.corners[:, 2:] - found.corners[:, :2], axis=1) > LEAST)
    if not len(found):
        raise UserError(
            f"The dense detector finds nothing (no box above a confidence of {CONFIDENCE:g}) on {len(index)} images, "
            "so agreement cannot be measured. Set --images with images that contain objects."
        )
    return validate(other, labelled_with(index, found), plain, progress=progress)


def labelled_with(index: Index, boxes: Boxes) -> Index:
    """The index with `boxes` as labels, in pixels and in the order of the images."""
    sides = index.shapes[boxes.image][:, ::-1].astype(np.float64)
    centres = (boxes.corners[:, :2] + boxes.corners[:, 2:]) / 2 / sides
    extent = (boxes.corners[:, 2:] - boxes.corners[:, :2]) / sides
    labels = np.concatenate((boxes.classes[:, None], centres, extent), axis=1).astype(np.float32)
    counts = np.bincount(boxes.image, minlength=len(index))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    nothing = np.zeros(0, np.int64)
    return replace(index, labels=labels, offsets=offsets, points=np.zeros((0, 2), np.float32), point_offsets=nothing)
