"""Distinguishes labels with key points from outlines: both are rows of a class and an even number of values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_MOST = 90.0  # share of rows in per cent: some key points of real data sets are outside their box
_LOOSE = 0.1  # of the sides of a box, by which a key point may be outside
_SAMPLE = 2000  # number of rows to check
_SIDES = 30  # number of sides of an outline to check for crossings


def key_points_of(points: Floats, lengths: NDArray[np.int64]) -> tuple[int, int] | None:
    """The `kpt_shape` of rows that were read as outlines but hold a box and key points; None for outlines.

    In a data set with key points, all rows have the same length, their points are inside the box of the first four
    values, and they do not form a sensible outline: the second point, which is the box size, is far from the others, or
    the line crosses itself. A data set is classified as key points if nearly all rows fit, and half of them do not form
    an outline. A single polygon near the middle of an image can look like a box with key points, but a whole data set
    cannot.

    Args:
        points: float32 [p, 2], normalised, of all outlines.
        lengths: int64 [n], number of points of each outline, all positive.
    """
    if not len(lengths) or lengths.min() != lengths.max() or lengths[0] < 3:
        return None
    outlines = points.reshape(len(lengths), int(lengths[0]), 2).astype(np.float64)
    outlines = outlines[np.linspace(0, len(outlines) - 1, min(len(outlines), _SAMPLE)).astype(np.int64)]
    values = outlines[:, 2:].reshape(len(outlines), -1)
    if values.shape[1] % 3 == 0:
        triples = values.reshape(len(outlines), -1, 3)
        seen = triples[..., 2]
        if ((seen == 0) | (seen == 1)).all() and _share(
            _fit(outlines, triples[..., :2], np.asarray(seen > 0))
        ) >= _MOST:
            return triples.shape[1], 3
    pairs = outlines[:, 2:]
    fitting = _fit(outlines, pairs, np.asarray((pairs > 0).any(-1)))
    if _share(fitting) < _MOST:
        return None
    strange = _has_spike(outlines[fitting]) | _crosses_itself(outlines[fitting])
    return (pairs.shape[1], 2) if _share(strange) >= 50 else None


def _share(holds: NDArray[np.bool_]) -> float:
    return 100 * float(holds.mean())


def _fit(rows: NDArray[np.float64], points: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the first four values of a row are a box inside the image that contains the visible points."""
    centre, size = rows[:, 0], rows[:, 1]
    low, high = centre - size / 2, centre + size / 2
    box = (size > 0).all(-1) & (low >= -0.01).all(-1) & (high <= 1.01).all(-1)
    margin = _LOOSE * size[:, None]
    inside = ((points >= low[:, None] - margin) & (points <= high[:, None] + margin)).all(-1)
    return np.asarray(box & (inside | ~seen).all(-1) & seen.any(-1), np.bool_)


def _has_spike(outlines: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the second point is farther from the box of the others than the width of that box."""
    others = np.delete(outlines, 1, axis=1)
    low, high = others.min(1), others.max(1)
    away = np.maximum(np.maximum(low - outlines[:, 1], outlines[:, 1] - high), 0)
    return np.asarray(np.hypot(*away.T) > np.hypot(*(high - low).T), np.bool_)


def _crosses_itself(outlines: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether two non-adjacent sides of an outline cross; only the beginning of long outlines is checked."""
    starts, ends = outlines[:, :_SIDES], np.roll(outlines, -1, 1)[:, :_SIDES]
    count = starts.shape[1]
    one, other = np.triu_indices(count, 2)
    apart = ~((one == 0) & (other == outlines.shape[1] - 1))
    crosses = np.zeros(len(outlines), np.bool_)
    for i, j in zip(one[apart].tolist(), other[apart].tolist(), strict=True):
        a, b, c, d = starts[:, i], ends[:, i], starts[:, j], ends[:, j]
        crosses |= (_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)
    return crosses


def _side(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive if c is to the left of the line from a to b, negative if to the right."""
    return np.asarray((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
