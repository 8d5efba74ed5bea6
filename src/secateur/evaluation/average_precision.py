"""COCO's average precision from ranked detections, for many weightings of the images at once, and by object size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.evaluation.matching import Boxes, Floats, Ints, matches

THRESHOLDS = tuple(float(value) for value in np.linspace(0.5, 0.95, 10))
"""COCO's IoU thresholds."""
SIZES = {"AP small": (0.0, 32.0**2), "AP medium": (32.0**2, 96.0**2), "AP large": (96.0**2, 1e10)}
"""Object areas in square pixels of the original image, both bounds inclusive as in COCO."""
_RECALLS = np.linspace(0, 1, 101)
Singles = NDArray[np.float32]
_CHUNK = 4_000_000  # maximum number of values in an array, to limit memory


@dataclass(frozen=True)
class Ranked:
    """The detections of one class, most confident first.

    Attributes:
        image: int64 [n], image number of each detection.
        hits: bool [thresholds, n], whether the detection matches an object.
        objects: int64 [images], number of objects per image.
    """

    image: Ints
    hits: NDArray[np.bool_]
    objects: Ints

    def average_precision(self, weights: Ints) -> Floats:
        """Area under the precision-recall curve at 101 recall points.

        Args:
            weights: int64 [b, images], how often each image counts.

        Returns:
            float64 [b, thresholds]; NaN without objects.
        """
        result = np.full((len(weights), len(self.hits)), np.nan)
        total = weights @ self.objects
        places = np.flatnonzero(self.hits.any(axis=0))
        step = max(1, _CHUNK // max(1, len(places), len(self.objects)))
        for first in range(0, len(weights), step):
            part = slice(first, first + step)
            # Sums of integers below 2^24 are exact in float32.
            columns = np.ascontiguousarray(weights[part].T, np.float32)
            result[part] = self._of_columns(columns, total[part], places).T
        result[total == 0] = np.nan
        return result

    def _of_columns(self, columns: Singles, total: Ints, places: Ints) -> Floats:
        """float64 [thresholds, b] from weights float32 [images, b]. Precision has its maxima at hits, so only their
        places count.
        """
        result = np.zeros((len(self.hits), columns.shape[1]))
        if not len(places):
            return result
        seen = np.maximum(self._seen(columns, places), 1)
        for row, hits in zip(result, self.hits[:, places], strict=True):
            if not hits.any():
                continue
            found = _running(columns[self.image[places[hits]]], np.add)
            envelope = _running(np.divide(found, seen[hits], dtype=np.float64)[::-1], np.maximum)[::-1]
            points = _points_reached(found / np.maximum(total, 1))
            row[:] = (np.diff(points, axis=0, prepend=0) * envelope).sum(axis=0) / len(_RECALLS)
        return result

    def _seen(self, columns: Singles, places: Ints) -> Singles:
        """float32 [places, b], the weighted number of detections up to each place."""
        between = np.searchsorted(places, np.arange(places[-1] + 1))  # the place that follows each detection
        image, images = self.image[: len(between)], len(columns)
        seen, step = np.empty((len(places), columns.shape[1]), np.float32), max(1, _CHUNK // images)
        for first in range(0, len(places), step):
            mine = (between >= first) & (between < first + step)
            count = min(step, len(places) - first)
            cells = np.bincount((between[mine] - first) * images + image[mine], minlength=count * images)
            seen[first : first + count] = cells.reshape(count, images).astype(np.float32) @ columns
        return _running(seen, np.add)


def ranked(
    truths: Boxes, detections: Boxes, images: int, thresholds: Sequence[float] = THRESHOLDS
) -> dict[int, Ranked]:
    """The ranked detections of every class with objects, by class id, matched by COCO's rule.

    Args:
        truths: the objects.
        detections: the detected boxes.
        images: number of images.
        thresholds: IoU thresholds.
    """
    hits = matches(truths, detections, thresholds) >= 0
    return {
        number: Ranked(detections.image[mine], hits[:, mine], objects)
        for number, mine, objects in _of_classes(truths, detections, images)
    }


def ap_by_size(
    truths: Boxes, detections: Boxes, images: int, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float | None]:
    """COCO's AP by object size, averaged over thresholds and over the classes with such objects; None without any.

    Objects of other sizes are ignored, as are detections that match them and unmatched detections of other sizes.
    """
    result: dict[str, float | None] = {}
    once = np.ones((1, images), np.int64)
    for name, area in SIZES.items():
        other = _outside(truths, area)
        found = matches(truths, detections, thresholds, other)
        hits = found >= 0
        ignored = np.where(hits, other[found], _outside(detections, area)) if len(truths) else ~hits
        values = []
        for _, mine, objects in _of_classes(truths.where(~other), detections, images):
            for row, left_out in zip(hits, ignored, strict=True):
                kept = mine[~left_out[mine]]
                one = Ranked(detections.image[kept], row[None, kept], objects)
                values.append(float(one.average_precision(once)[0, 0]))
        result[name] = float(np.mean(values)) if values else None
    return result


def _of_classes(truths: Boxes, detections: Boxes, images: int) -> Iterator[tuple[int, Ints, Ints]]:
    """For every class with objects: its id, the indices of its detections, most confident first, and int64 [images],
    the number of its objects per image.
    """
    for number in np.unique(truths.classes):
        mine = np.flatnonzero(detections.classes == number)
        mine = mine[np.argsort(-detections.scores[mine], kind="stable")]
        objects = np.bincount(truths.image[truths.classes == number], minlength=images)
        yield int(number), mine, objects.astype(np.int64)


def _outside(boxes: Boxes, area: tuple[float, float]) -> NDArray[np.bool_]:
    areas = (boxes.corners[:, 2:] - boxes.corners[:, :2]).prod(axis=1)
    return np.asarray((areas < area[0]) | (areas > area[1]))


def _running(rows: NDArray[Any], combine: np.ufunc) -> NDArray[Any]:
    """`combine.accumulate` over the rows [rows, ...], in place; processing row by row is several times faster."""
    for above, row in itertools.pairwise(rows):
        combine(above, row, out=row)
    return rows


def _points_reached(recall: Floats) -> Ints:
    """For each recall, how many of the 101 recall points it reaches, exactly (0.29 is not 29 times 0.01 in floating
    point).
    """
    guess = (recall * 100).astype(np.int64)
    guess -= _RECALLS[guess] > recall
    guess += _RECALLS[np.minimum(guess + 1, 100)] <= recall
    return np.minimum(guess, 100) + 1
