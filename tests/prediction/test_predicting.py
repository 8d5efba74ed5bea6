"""Boxes come back in the pixels of each image, whatever its shape, its companions and the predictor's size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from bright_rectangles import CLASSES, GREEN, RED, WHITE, BrightRectangles, picture
from torch import Tensor

from secateur.data.images import Image
from secateur.errors import UserError
from secateur.evaluation.nms import Candidates
from secateur.prediction.media import Frame
from secateur.prediction.predicting import BoxFinder, class_ids
from secateur.prediction.settings import BoxSettings
from secateur.prediction.sources import Medium


def assert_found(
    boxes: Tensor, pixels: Image, *objects: tuple[tuple[int, int, int], tuple[int, ...]], side: int
) -> None:
    """The boxes are those objects, within a pixel of the network's image."""
    tolerance = 1.01 * max(max(pixels.shape[:2]) / side, 1)
    assert len(boxes) == len(objects)
    for colour, box in objects:
        near = [row for row in boxes.tolist() if row[5] == CLASSES[colour]]
        errors = [max(abs(a - b) for a, b in zip(row[:4], box, strict=True)) for row in near]
        assert errors and min(errors) <= tolerance, (box, near)


@pytest.mark.parametrize("image_size", [None, 256, (128, 256)])
@pytest.mark.parametrize(("height", "width"), [(2160, 3840), (3840, 2160), (480, 640), (101, 333), (64, 64)])
def test_boxes_are_where_the_objects_are(height: int, width: int, image_size: int | tuple[int, int] | None) -> None:
    objects = [
        (RED, (0, 0, width // 4, height // 3)),
        (GREEN, (width // 2, height // 2, width, height)),
        (WHITE, (width // 2, height // 8, width * 7 // 8, height // 3)),
    ]
    pixels = picture(height, width, *objects)
    boxes = BoxFinder(BrightRectangles(image_size), image_size or 256).boxes([pixels])[0]
    assert boxes.dtype is torch.float32
    assert_found(boxes, pixels, *objects, side=128 if image_size == (128, 256) else 256)


def test_a_picture_of_ten_pixels() -> None:
    pixels = picture(10, 10, (RED, (2, 3, 7, 9)))
    assert_found(BoxFinder(BrightRectangles(), 64).boxes([pixels])[0], pixels, (RED, (2, 3, 7, 9)), side=64)


def test_pictures_are_batched_by_their_shape_and_keep_their_order() -> None:
    """A rectangle costs less than a square; what is found does not depend on the companions."""
    pictures = [
        picture(*shape, (RED, (5 * k, 10, 5 * k + 20, 40)))
        for k, shape in enumerate([(90, 160), (160, 90), (90, 160), (120, 120), (90, 160)])
    ]
    predictor = BrightRectangles()
    frames = [Frame(Medium("image", str(k), str(k)), pixels) for k, pixels in enumerate(pictures)]
    found = list(BoxFinder(predictor, 160, batch_size=4).predictions(frames))
    assert predictor.shapes == [(2, 3, 96, 160), (1, 3, 160, 96), (1, 3, 160, 160), (1, 3, 96, 160)]
    assert [prediction.frame for prediction in found] == frames
    alone = BoxFinder(BrightRectangles(), 160)
    for prediction, pixels in zip(found, pictures, strict=True):
        assert torch.equal(prediction.boxes, alone.boxes([pixels])[0])
        assert len(prediction.boxes) == 1


def test_a_predictor_of_one_size_gets_images_of_that_size() -> None:
    predictor = BrightRectangles((96, 128))
    BoxFinder(predictor, (96, 128), batch_size=2).boxes([picture(30, 300), picture(300, 30)])
    assert predictor.shapes == [(2, 3, 96, 128)]


@pytest.mark.parametrize("size", [(96, 128), (128, 128)])
def test_two_numbers_are_the_size_of_every_image(size: tuple[int, int]) -> None:
    """Where one number is the longest side and the other follows."""
    predictor, pictures = BrightRectangles(), [picture(30, 300), picture(300, 30)]
    BoxFinder(predictor, size, batch_size=2).boxes(pictures)
    assert predictor.shapes == [(2, 3, *size)]
    BoxFinder(predictor, 128, batch_size=2).boxes(pictures)
    assert predictor.shapes[1:] == [(1, 3, 32, 128), (1, 3, 128, 32)]


def test_a_camera_is_not_waited_for() -> None:
    predictor = BrightRectangles()
    frames = [Frame(Medium("camera", "0", "webcam0"), picture(64, 64), number) for number in (1, 2)]
    assert len(list(BoxFinder(predictor, 64, batch_size=8).predictions(frames))) == 2
    assert predictor.shapes == [(1, 3, 64, 64)] * 2


def test_thresholds() -> None:
    pixels = picture(64, 64, (RED, (0, 0, 30, 30)), (GREEN, (40, 40, 50, 50)), (RED, (40, 0, 45, 9)))
    confidences = BoxFinder(BrightRectangles(), 64).boxes([pixels])[0][:, 4].tolist()
    assert confidences == sorted(confidences, reverse=True) and len(confidences) == 3
    sure = BoxSettings(conf=confidences[1])
    assert len(BoxFinder(BrightRectangles(), 64, sure).boxes([pixels])[0]) == 1
    assert len(BoxFinder(BrightRectangles(), 64, BoxSettings(max_det=2)).boxes([pixels])[0]) == 2


class Overlapping(BrightRectangles):
    """Says that the same place is surely red and perhaps green."""

    def infer(self, images: Tensor, confidence: float) -> list[Candidates]:
        place = torch.tensor([[22.0, 22.0, 42.0, 42.0]] * 2)
        return [Candidates(place, torch.tensor([[0.9, 0.18, 0.0], [0.06, 0.6, 0.0]])) for _ in images]


def test_classes_that_are_not_wanted_take_nothing_from_others() -> None:
    def classes(**settings: object) -> list[int]:
        finder = BoxFinder(Overlapping(), 64, BoxSettings(**settings))  # type: ignore[arg-type]
        return [int(number) for number in finder.boxes([picture(64, 64)])[0][:, 5]]

    assert classes() == [0, 1]
    assert classes(agnostic=True) == [0]
    assert classes(agnostic=True, classes=("green",)) == [1]
    assert classes(classes=("2",)) == []


def test_classes_by_id_and_name() -> None:
    names = {0: "person", 1: "Traffic light", 2: "0"}
    assert class_ids(["1", "person", "traffic light"], names) == [1, 0, 1]
    assert class_ids(["0"], names) == [2]  # a name before an id
    with pytest.raises(UserError, match=r"There is no class 'cat'\. The detector has 3 classes: 0 person"):
        class_ids(["cat"], names)
    with pytest.raises(UserError, match="There is no class '7'"):
        class_ids(["7"], names)


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="batch_size"):
        BoxFinder(BrightRectangles(), 64, batch_size=0)
    with pytest.raises(UserError, match="conf"):
        BoxSettings(conf=1.5)


def test_resizing_is_bilinear() -> None:
    """As in YOLOv5's prediction, also where an image becomes smaller."""
    seen: list[Tensor] = []

    class Looking(BrightRectangles):
        def infer(self, images: Tensor, confidence: float) -> list[Candidates]:
            seen.append(images)
            return [Candidates(torch.zeros(0, 4), torch.zeros(0, 3)) for _ in images]

    pixels = np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8)
    BoxFinder(Looking(), 64).boxes([pixels])
    expected = cv2.resize(pixels, (64, 32), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    assert np.allclose(seen[0][0].permute(1, 2, 0).numpy() * 255, expected)


class BrightGrey(BrightRectangles):
    """Finds rectangles by their grey value."""

    channels = 1

    def seen(self, images: Tensor) -> Tensor:
        assert images.shape[1] == 1
        levels = (images * 255).round()
        # Red is 76 as grey, green 150, white 255; the border of the image is 114.
        red, green, white = ((levels == value).float() for value in (76, 150, 255))
        return torch.cat([torch.maximum(red, white), torch.maximum(green, white), white], 1)


@pytest.mark.parametrize("image_size", [None, 256])
def test_a_grey_predictor_is_shown_one_channel_of_colour_images(image_size: int | None) -> None:
    objects = [(RED, (8, 8, 40, 40)), (GREEN, (56, 8, 96, 40)), (WHITE, (104, 8, 150, 40))]
    pixels = picture(128, 256, *objects)
    before = pixels.copy()
    boxes = BoxFinder(BrightGrey(image_size), 256).boxes([pixels])[0]
    assert_found(boxes, pixels, *objects, side=256)
    assert (pixels == before).all()


def test_a_predictor_of_four_channels_is_refused() -> None:
    predictor = BrightRectangles()
    predictor.channels = 4
    with pytest.raises(UserError, match="takes images of 4 channels, but Secateur reads only images of 1"):
        BoxFinder(predictor, 64)
