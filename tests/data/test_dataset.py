"""Samples for evaluation and training: shapes, boxes that stay on their objects, randomness, the image cache."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import MakeData

from secateur.data.augment import Augmentation
from secateur.data.config import load_data_config
from secateur.data.dataset import DetectionDataset
from secateur.data.images import read_image
from secateur.data.index import Index, scan
from secateur.data.letterbox import letterboxed
from secateur.data.synthetic import generate
from secateur.errors import UserError

SIZES = [(48, 64), (64, 48), (30, 90), (64, 64), (90, 31), (100, 200)]


@pytest.fixture
def index(make_data: MakeData) -> Index:
    labels = ["0 0.5 0.5 0.25 0.5\n2 0.3 0.3 0.2 0.2\n"] * 5 + [None]
    return scan(load_data_config(make_data(labels, sizes=SIZES)), "train", progress=False)


@pytest.fixture
def block(tmp_path: Path) -> Index:
    """One image with a white block on black, its label exactly the block."""
    image = np.zeros((80, 120, 3), np.uint8)
    image[20:50, 30:90] = 255
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    (tmp_path / "labels" / "a.txt").write_text(f"0 {60 / 120} {35 / 80} {60 / 120} {30 / 80}\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [block]")
    return scan(load_data_config(tmp_path / "data.yaml"), "train", progress=False)


def bright_box(image: np.ndarray) -> np.ndarray:
    mask = image.min(2) > 200
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], float)


def pixel_box(row: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x, y, w, h = row[1:] * (width, height, width, height)
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def test_square_letterbox(index: Index) -> None:
    sample = DetectionDataset(index, 96)[0]
    assert sample.image.shape == (96, 96, 3)
    assert sample.image.dtype == np.uint8
    assert (sample.image[:12] == 114).all()
    assert (sample.image[-12:] == 114).all()
    assert not (sample.image[12:-12] == 114).all((1, 2)).any()
    assert sample.original_shape == (48, 64)
    assert sample.ratio_pad == ((1.5, 1.5), (0.0, 12.0))
    np.testing.assert_allclose(sample.labels[0], [0, 0.5, 0.5, 0.25, 0.5 * 0.75], atol=1e-6)


@pytest.mark.parametrize("size", [64, 160, 224])
@pytest.mark.parametrize("rectangular", [False, True])
def test_ratio_pad_leads_back_to_the_file(block: Index, size: int, rectangular: bool) -> None:
    sample = DetectionDataset(block, size, rectangular=rectangular, batch_size=1)[0]
    (ratio_h, ratio_w), (pad_x, pad_y) = sample.ratio_pad
    box = pixel_box(sample.labels[0], sample.image)
    back = (box - [pad_x, pad_y, pad_x, pad_y]) / [ratio_w, ratio_h, ratio_w, ratio_h]
    np.testing.assert_allclose(back, [30, 20, 90, 50], atol=0.5)
    np.testing.assert_allclose(bright_box(sample.image), box, atol=2)


def test_one_shape_for_all(index: Index) -> None:
    dataset = DetectionDataset(index, (64, 128))
    for i, (height, width) in enumerate(SIZES):
        sample = dataset[i]
        assert sample.image.shape == (64, 128, 3) and dataset.canvas(i) == (64, 128)
        (ratio_y, ratio_x), (pad_x, pad_y) = sample.ratio_pad
        assert ratio_y * height + 2 * pad_y == pytest.approx(64, abs=1)
        assert ratio_x * width + 2 * pad_x == pytest.approx(128, abs=1)
    with pytest.raises(ValueError, match="square"):
        DetectionDataset(index, (64, 128), augmentation=Augmentation())


def test_one_oblong_shape_is_fitted_as_for_a_prediction(index: Index, block: Index) -> None:
    """In one step from the file's pixels, whatever the longer side of image and shape."""
    for shape in ((64, 128), (128, 64), (32, 64)):
        dataset = DetectionDataset(index, shape)
        for i, size in enumerate(SIZES):
            expected, fit = letterboxed(read_image(index.files[i]), shape)
            sample = dataset[i]
            assert np.array_equal(sample.image, expected)
            assert sample.original_shape == fit.shape == size
            assert sample.ratio_pad == (fit.ratio, fit.pad[::-1])
            assert all(side * ratio <= most for side, ratio, most in zip(size, fit.ratio, shape, strict=True))
        sample = DetectionDataset(block, shape)[0]
        np.testing.assert_allclose(bright_box(sample.image), pixel_box(sample.labels[0], sample.image), atol=1)
        (ratio_h, ratio_w), (pad_x, pad_y) = sample.ratio_pad
        back = (pixel_box(sample.labels[0], sample.image) - [pad_x, pad_y] * 2) / ([ratio_w, ratio_h] * 2)
        np.testing.assert_allclose(back, [30, 20, 90, 50], atol=1e-3)


def test_a_narrow_image_keeps_a_pixel_of_an_oblong_shape(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a" / "a.png"), np.zeros((4000, 10, 3), np.uint8))
    (tmp_path / "data.yaml").write_text("train: a\nnames: [block]")
    index = scan(load_data_config(tmp_path / "data.yaml"), "train", progress=False)
    sample = DetectionDataset(index, (64, 640))[0]
    assert (sample.image != 114).all(2).sum() == 64


def test_rectangular_shapes(index: Index) -> None:
    dataset = DetectionDataset(index, 128, rectangular=True, batch_size=2, stride=32, pad=0.5)
    aspects = np.array([h / w for h, w in SIZES])[dataset.order]
    assert (np.diff(aspects) >= 0).all()
    for start in range(0, len(SIZES), 2):
        members = dataset.order[start : start + 2]
        shapes = {dataset.canvas(int(i)) for i in members}
        assert len(shapes) == 1
        assert all(dataset[int(i)].image.shape[:2] in shapes for i in members)
        low, high = aspects[start], aspects[start : start + 2][-1]
        height = math.ceil((high if high < 1 else 1) * 128 / 32 + 0.5) * 32
        width = math.ceil((1 / low if low > 1 else 1) * 128 / 32 + 0.5) * 32
        assert shapes == {(height, width)}


@pytest.mark.parametrize(
    "how",
    [
        Augmentation(hsv_h=0, hsv_s=0, hsv_v=0, mosaic=0, fliplr=0.5, flipud=0.5),
        Augmentation(hsv_h=0, hsv_s=0, hsv_v=0, mosaic=0, fliplr=0, degrees=0, shear=0, scale=0.3),
    ],
)
def test_boxes_follow_the_pixels(block: Index, how: Augmentation) -> None:
    dataset = DetectionDataset(block, 160, augmentation=how)
    for epoch in range(10):
        sample = dataset[epoch, 0]
        np.testing.assert_allclose(bright_box(sample.image), pixel_box(sample.labels[0], sample.image), atol=2)


@pytest.mark.parametrize("how", [Augmentation(), Augmentation(degrees=10, shear=3, mixup=1.0, perspective=0.0005)])
def test_samples_are_a_function_of_seed_epoch_and_image(index: Index, how: Augmentation) -> None:
    first, second = (DetectionDataset(index, 96, augmentation=how, seed=1) for _ in range(2))
    second[0, 3]  # what came before does not matter
    for key in [(0, 0), (0, 1), (5, 0)]:
        np.testing.assert_array_equal(first[key].image, second[key].image)
        np.testing.assert_array_equal(first[key].labels, second[key].labels)
    assert (first[0, 0].image != first[1, 0].image).any()
    assert (first[0, 0].image != DetectionDataset(index, 96, augmentation=how, seed=2)[0, 0].image).any()


def test_training_samples_are_valid(index: Index) -> None:
    dataset = DetectionDataset(index, 96, augmentation=Augmentation(degrees=30, shear=10, scale=0.9, mixup=0.5))
    for epoch in range(4):
        for i in range(len(index)):
            sample = dataset[epoch, i]
            assert sample.image.shape == (96, 96, 3)
            assert sample.image.flags["C_CONTIGUOUS"]
            assert sample.labels.dtype == np.float32
            assert ((sample.labels[:, 1:] >= 0) & (sample.labels[:, 1:] <= 1)).all()
            assert set(sample.labels[:, 0]) <= {0, 2}


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_cache_changes_nothing(index: Index, augmentation: Augmentation | None) -> None:
    plain = DetectionDataset(index, 64, augmentation=augmentation, cache_images=False)
    cached = DetectionDataset(index, 64, augmentation=augmentation, cache_images="ram")
    for _ in range(2):
        for i in range(len(index)):
            np.testing.assert_array_equal(plain[0, i].image, cached[0, i].image)


def test_pickled_data_set_carries_no_index(index: Index) -> None:
    dataset = DetectionDataset(index, 96, augmentation=Augmentation())
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.index is None
    np.testing.assert_array_equal(copy[2, 1].image, dataset[2, 1].image)


def test_copy_paste_needs_outlines(tmp_path: Path, index: Index) -> None:
    how = {"hsv_h": 0, "hsv_s": 0, "hsv_v": 0}
    boxes = [DetectionDataset(index, 96, augmentation=Augmentation(**how, copy_paste=p)) for p in (0.0, 1.0)]
    np.testing.assert_array_equal(boxes[0][0, 0].image[:, 0], boxes[1][0, 0].image[:, 0])
    data = generate(tmp_path / "shapes", (4, 0, 0), 128)
    for file in (tmp_path / "shapes" / "labels" / "train").iterdir():
        file.write_text("0 0.3 0.3 0.5 0.3 0.5 0.5 0.3 0.5\n")  # an outline a file
    outlined = scan(load_data_config(data), "train", progress=False)
    how |= {"fliplr": 0}
    plain, pasted = (
        DetectionDataset(outlined, 128, augmentation=Augmentation(**how, copy_paste=p)) for p in (0.0, 1.0)
    )
    assert any(len(pasted[e, 0].labels) > len(plain[e, 0].labels) for e in range(5))


def test_rectangular_training(index: Index) -> None:
    dataset = DetectionDataset(index, 96, augmentation=Augmentation(), rectangular=True, batch_size=2, pad=0.0)
    for i in range(len(index)):
        assert dataset[0, i].image.shape[:2] == dataset.canvas(i)


@pytest.fixture
def grey_index(make_data: MakeData) -> Index:
    """Images whose three channels are the same, with outlines and boxes."""
    outline = "0 0.2 0.2 0.6 0.2 0.6 0.7 0.2 0.7\n"
    file = make_data([outline] * 4 + ["1 0.5 0.5 0.25 0.5\n", None], sizes=SIZES)
    for image in (file.parent / "images" / "train").iterdir():
        cv2.imwrite(str(image), read_image(str(image))[..., 1])
    return scan(load_data_config(file), "train", progress=False)


EVERYTHING = {"degrees": 10, "shear": 5, "mixup": 0.5, "copy_paste": 1.0, "flipud": 0.5}


@pytest.mark.parametrize(
    "how",
    [
        None,
        Augmentation(),
        Augmentation(mosaic=0.0, hsv_h=0, hsv_s=0, hsv_v=0),
        Augmentation(**EVERYTHING),
        Augmentation(**EVERYTHING, perspective=0.001),
    ],
    ids=["evaluation", "default", "no mosaic, no colours", "everything", "perspective"],
)
@pytest.mark.parametrize("cache", [False, "ram"])
def test_one_channel_shows_of_grey_images_what_each_of_three_shows(
    grey_index: Index, how: Augmentation | None, cache: bool
) -> None:
    grey, colour = (
        DetectionDataset(grey_index, 64, augmentation=how, cache_images=cache, channels=channels) for channels in (1, 3)
    )
    for key in [(epoch, i) for epoch in range(3) for i in range(len(grey_index))]:
        one, three = grey[key], colour[key]
        assert one.image.shape == (64, 64, 1) and one.image.dtype == np.uint8
        # Interpolation rounds three channels at once in another way than one.
        assert np.abs(one.image.astype(int) - three.image).max() <= 1
        np.testing.assert_array_equal(one.labels, three.labels)


def test_one_channel_of_colour_images_follows_the_weights(index: Index) -> None:
    grey, colour = (DetectionDataset(index, 200, channels=channels)[5] for channels in (1, 3))  # no resizing
    expected = colour.image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey.image[..., 0] - expected).max() <= 0.51
    # A prediction reads the same file in the same way.
    shown, _ = letterboxed(read_image(index.files[5]), 200, channels=1)
    np.testing.assert_array_equal(shown, grey.image)


def test_a_cache_of_grey_images_takes_a_third(index: Index) -> None:
    caches = [DetectionDataset(index, 64, cache_images="ram", channels=channels)._cache for channels in (1, 3)]
    one, three = (len(cache._pixels) for cache in caches if cache is not None)
    assert 3 * one == three > 0


def test_four_channels_are_refused(index: Index) -> None:
    with pytest.raises(UserError, match=r"images of 4 channels, but Secateur reads only images of 1 \(grey\) or 3"):
        DetectionDataset(index, 64, channels=4)
