"""Composed tiles against the usual double canvas, and the random geometry and colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import smooth_image
from reference_mosaic import double_canvas

from secateur.data.augment import Augmentation, colour_table, random_view, to_rgb, visible_enough, warp_boxes
from secateur.data.mosaic import compose, mosaic_tiles, snapped

SIDE = 160
SIZES = [(120, 160), (160, 100), (90, 160), (160, 160)]
VIEWS = {
    "default": Augmentation(),
    "still": Augmentation(translate=0, scale=0),
    "turned": Augmentation(degrees=20, shear=8, scale=0.9),
    "perspective": Augmentation(degrees=5, perspective=0.001),
}


def drawn(seed: int, how: Augmentation):
    rng = np.random.default_rng(seed)
    centre = tuple(int(v) for v in rng.uniform(0.5 * SIDE, 1.5 * SIDE, 2))
    view, gain = random_view(rng, how, (2 * SIDE, 2 * SIDE), (SIDE, SIDE))
    return rng, centre, snapped(view, centre), gain


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("seed", range(8))
def test_composed_equals_double_canvas(name: str, seed: int) -> None:
    rng, centre, view, _ = drawn(seed, VIEWS[name])
    images = [smooth_image(*size, seed * 4 + k) for k, size in enumerate(SIZES)]
    labels = [np.column_stack([np.arange(3), rng.uniform(0.2, 0.8, (3, 4))]).astype(np.float32) for _ in images]
    expected, before, after = double_canvas(images, labels, SIDE, centre, view)
    tiles = mosaic_tiles(range(4), SIZES, centre, SIDE)
    picture = compose(tiles, images.__getitem__, view, (SIDE, SIDE))
    difference = np.abs(picture.astype(int) - expected.astype(int))
    # Where tiles meet, the canvas blends two pixels that the composed image keeps apart.
    assert difference.mean() < 1.0
    assert np.median(difference) <= 1
    boxes = warp_boxes(before[:, 1:], [np.zeros((0, 2), np.float32)] * len(before), view, (SIDE, SIDE))
    np.testing.assert_allclose(boxes, after[:, 1:], atol=1e-4 * SIDE)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("factor", [0.7, 1.0, 2.0])
def test_resolution_of_the_source_does_not_move_anything(seed: int, factor: float) -> None:
    _, centre, view, _ = drawn(seed, VIEWS["default"])
    images = [smooth_image(*size, seed * 4 + k) for k, size in enumerate(SIZES)]
    other = [cv2.resize(image, None, fx=factor, fy=factor) for image in images]
    tiles = mosaic_tiles(range(4), SIZES, centre, SIDE)
    pictures = [compose(tiles, source.__getitem__, view, (SIDE, SIDE)).astype(int) for source in (images, other)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 1.5


def test_unseen_tiles_are_not_read() -> None:
    tiles = mosaic_tiles(range(4), [(SIDE, SIDE)] * 4, (SIDE, SIDE), SIDE)
    view = np.array([[1.0, 0, -SIDE], [0, 1.0, -SIDE], [0, 0, 1]])  # only the lower right tile
    read = []

    def source(number: int) -> np.ndarray:
        read.append(number)
        return smooth_image(SIDE, SIDE, number)

    compose(tiles, source, view, (SIDE, SIDE))
    assert read == [3]


def test_snapping_moves_less_than_a_pixel_and_keeps_turned_views() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view, _ = random_view(rng, VIEWS["default"], (320, 320), (160, 160))
        moved = snapped(view, (150, 170))
        assert np.abs(moved - view).max() <= 0.5
        edge = moved @ (149.5, 169.5, 1) + 0.5
        np.testing.assert_allclose(edge[:2], np.round(edge[:2]), atol=1e-9)
    turned, _ = random_view(np.random.default_rng(0), VIEWS["turned"], (320, 320), (160, 160))
    assert snapped(turned, (1, 2)) is turned


def test_outline_gives_a_tighter_box_when_turned() -> None:
    angle = np.radians(45)
    view = np.array([[np.cos(angle), np.sin(angle), 50], [-np.sin(angle), np.cos(angle), 100], [0, 0, 1]])
    box = np.array([[40, 40, 80, 80]], np.float32)
    diamond = np.array([[60, 40], [80, 60], [60, 80], [40, 60]], np.float32)
    loose = warp_boxes(box, [np.zeros((0, 2), np.float32)], view, (200, 200))[0]
    tight = warp_boxes(box, [diamond], view, (200, 200))[0]
    assert (tight[2] - tight[0]) == pytest.approx(40 / np.sqrt(2), abs=0.2)
    assert (loose[2] - loose[0]) == pytest.approx(40 * np.sqrt(2), abs=0.2)


def test_boxes_worth_keeping() -> None:
    before = np.array([[0, 0, 100, 100]] * 4, np.float32)
    after = np.array([[0, 0, 50, 50], [0, 0, 1.5, 50], [0, 0, 30, 30], [0, 0, 640, 5]], np.float32)
    assert visible_enough(before, after, 1.0).tolist() == [True, False, False, False]


def test_colour_table() -> None:
    image = smooth_image(40, 60, 0)
    assert colour_table(np.random.default_rng(0), Augmentation(hsv_h=0, hsv_s=0, hsv_v=0)) is None
    np.testing.assert_array_equal(to_rgb(image), image[..., ::-1])
    table = colour_table(np.random.default_rng(0), Augmentation(hsv_h=0, hsv_s=0, hsv_v=0.5))
    gain = to_rgb(image, table).astype(float).mean() / image.mean()
    assert gain != pytest.approx(1, abs=0.02)
    assert to_rgb(image, table).shape == image.shape


def test_from_hyp_takes_what_concerns_it() -> None:
    assert Augmentation.from_hyp({"lr0": 0.01, "mixup": 1, "degrees": 3}) == Augmentation(mixup=1.0, degrees=3.0)
