"""Letterboxing keeps the aspect, pads no more than needed, and boxes come back where they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.data.letterbox import Fit, letterboxed, to_original

SIDES = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "expected"),
    [
        ((1080, 810), 640, 32, (640, 480)),
        ((720, 1280), 640, 32, (384, 640)),  # 360 rows of image
        ((720, 1280), 640, 0, (640, 640)),
        ((480, 640), (256, 512), 0, (256, 512)),
        ((10, 10), 640, 32, (640, 640)),
        ((3, 4000), 640, 64, (64, 640)),
        ((2160, 3840), 1280, 64, (768, 1280)),
    ],
)
def test_images_are_as_small_as_the_stride_allows(
    shape: tuple[int, int], size: int | tuple[int, int], stride: int, expected: tuple[int, int]
) -> None:
    image, fit = letterboxed(np.zeros((*shape, 3), np.uint8), size, stride)
    assert image.shape == (*expected, 3) and image.dtype == np.uint8
    assert fit.shape == shape


def test_colours_are_rgb_and_the_border_is_grey() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:] = (10, 20, 30)
    image, fit = letterboxed(pixels, 80)
    assert fit == Fit((20, 40), (2.0, 2.0), (20, 0))
    assert (image[:20] == 114).all() and (image[60:] == 114).all()
    assert (image[20:60] == (30, 20, 10)).all()


@settings(max_examples=150, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.sampled_from([0, 8, 32, 64]), st.booleans(), st.data())
def test_boxes_come_back(
    shape: tuple[int, int], canvas: tuple[int, int], stride: int, square: bool, data: st.DataObject
) -> None:
    height, width = shape
    pixels = np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))
    size = max(canvas) % 1300 + 1 if square else (canvas[0] % 1300 + 1, canvas[1] % 1300 + 1)
    image, fit = letterboxed(pixels, size, stride)
    x = sorted(data.draw(st.tuples(*[st.floats(0, width)] * 2)))
    y = sorted(data.draw(st.tuples(*[st.floats(0, height)] * 2)))
    box = torch.tensor([[x[0], y[0], x[1], y[1], 0.5, 1.0]], dtype=torch.float64)
    inside = box.clone()
    inside[:, 0:4:2] = box[:, 0:4:2] * fit.ratio[1] + fit.pad[1]
    inside[:, 1:4:2] = box[:, 1:4:2] * fit.ratio[0] + fit.pad[0]
    assert inside[:, 0:4:2].max() <= image.shape[1] + 1e-6 and inside[:, 1:4:2].max() <= image.shape[0] + 1e-6
    assert inside[:, :4].min() >= 0
    assert (to_original(inside, fit) - box).abs().max() < 1e-3


def test_the_whole_picture_is_the_whole_of_its_place() -> None:
    """The corners of a narrow image too, where rounding to whole pixels is a large part of a side."""
    _, fit = letterboxed(np.zeros((4, 999, 3), np.uint8), 320, 32)
    assert fit.ratio == (1 / 4, 320 / 999)
    whole = torch.tensor([[0.0, fit.pad[0], 320.0, fit.pad[0] + 1.0, 1.0, 0.0]])
    assert to_original(whole, fit)[0, :4].tolist() == pytest.approx([0, 0, 999, 4])


def test_boxes_end_at_the_picture() -> None:
    rows = torch.tensor([[-50.0, -50.0, 900.0, 900.0, 0.5, 1.0]])
    _, fit = letterboxed(np.zeros((30, 60, 3), np.uint8), 64)
    assert to_original(rows, fit).tolist() == [[0.0, 0.0, 60.0, 30.0, 0.5, 1.0]]
    assert rows[0, 0] == -50


@pytest.mark.parametrize("side", [40, 80])
def test_one_channel_is_the_weighted_sum_and_is_not_mirrored(side: int) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:] = (10, 200, 30)
    pixels[:, :20] = (0, 0, 255)
    image, fit = letterboxed(pixels, side, channels=1)
    assert image.shape == (side, side, 1) and fit == letterboxed(pixels, side)[1]
    inside = image[side // 4 : -side // 4, :, 0]
    assert (image[: side // 4] == 114).all() and (image[-side // 4 :] == 114).all()
    assert (inside[:, : side // 4] == round(0.299 * 255)).all()
    assert (inside[:, -side // 4 :] == round(0.114 * 10 + 0.587 * 200 + 0.299 * 30)).all()
