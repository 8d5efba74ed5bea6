"""Key points are told from outlines by whole sets: neither kind is read as the other."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.data.checking.key_points import key_points_of

RNG = np.random.default_rng


def asked(outlines: np.ndarray) -> tuple[int, int] | None:
    rows, count = outlines.shape[:2]
    return key_points_of(outlines.reshape(-1, 2).astype(np.float32), np.full(rows, count))


def boxes(rng: np.random.Generator, rows: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres and sizes of boxes inside the image, of about this share of it."""
    size = np.clip(rng.lognormal(np.log(scale), 0.5, (rows, 2)), 0.02, 0.95)
    return rng.uniform(size / 2, 1 - size / 2), size


def with_key_points(rows: int, count: int, scale: float, values: int = 2) -> np.ndarray:
    """Boxes with key points anywhere in them, as they are read: points [rows, n, 2]."""
    rng = RNG(0)
    centre, size = boxes(rng, rows, scale)
    points = centre[:, None] + rng.uniform(-0.5, 0.5, (rows, count, 2)) * size[:, None]
    if values == 3:
        seen = rng.integers(0, 2, (rows, count, 1))
        seen[:, 0] = 1
        points = np.concatenate([points * seen, seen], 2)
    return np.concatenate([centre, size, points.reshape(rows, -1)], 1).reshape(rows, -1, 2)


def polygons(rows: int, corners: int, scale: float) -> np.ndarray:
    rng = RNG(1)
    centre, size = boxes(rng, rows, scale)
    angle = np.sort(rng.uniform(0, 2 * np.pi, (rows, corners)), 1)
    radius = rng.uniform(0.5, 1, (rows, corners))
    points = np.stack([np.cos(angle) * radius, np.sin(angle) * radius], -1) * size[:, None] / 2
    return np.clip(points + centre[:, None], 0, 1)


def turned_boxes(rows: int, scale: float) -> np.ndarray:
    """Four corners near the middle of the image: each could be a box with two key points."""
    rng = RNG(2)
    size, turn = rng.lognormal(np.log(scale), 0.3, (rows, 1, 2)), rng.uniform(0, np.pi, rows)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2 * size
    cosine, sine = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y = corners[..., 0], corners[..., 1]
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], -1) + rng.uniform(0.45, 0.55, (rows, 1, 2))


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("count", [1, 2, 5, 17])
def test_key_points_are_recognised(count: int, scale: float) -> None:
    assert asked(with_key_points(300, count, scale)) == (count, 2)


@pytest.mark.parametrize("count", [2, 4, 6])
def test_key_points_with_visibility_are_recognised(count: int) -> None:
    assert asked(with_key_points(300, count, 0.3, values=3)) == (count, 3)


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("corners", [3, 4, 5, 8, 20])
def test_polygons_stay_outlines(corners: int, scale: float) -> None:
    assert asked(polygons(300, corners, scale)) is None


def test_turned_boxes_in_the_middle_stay_outlines() -> None:
    assert asked(turned_boxes(300, 0.1)) is None


def test_one_row_decides_where_there_is_one_alone() -> None:
    person = [0.6, 0.4, 0.1, 0.3, 0.58, 0.3, 0.62, 0.3, 0.6, 0.5]
    assert asked(np.array([person]).reshape(1, -1, 2)) == (3, 2)
    for outline in (
        [0.2, 0.2, 0.6, 0.2, 0.6, 0.8, 0.2, 0.8],
        [0.5, 0.5, 0.6, 0.5, 0.55, 0.6],
        [0, 0, 1, 0, 1, 1, 0, 1],
    ):
        assert asked(np.array([outline]).reshape(1, -1, 2)) is None


def test_rows_of_different_lengths_are_outlines() -> None:
    rows = with_key_points(10, 5, 0.2)
    lengths = np.array([7] * 9 + [4])
    assert key_points_of(rows.reshape(-1, 2)[: lengths.sum()].astype(np.float32), lengths) is None
    assert key_points_of(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)) is None
