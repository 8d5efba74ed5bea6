"""Validation: what it must not touch, what must not matter, and the published figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from secateur.data.config import load_data_config
from secateur.data.images import read_image
from secateur.data.index import Index, scan
from secateur.errors import UserError
from secateur.evaluation.nms import Candidates, corners_of, non_max_suppression
from secateur.evaluation.settings import PREDICTION, NmsSettings, ValSettings
from secateur.evaluation.validate import auto_batch_size, check_image_size, subset, validate
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.prediction.predicting import BoxFinder
from secateur.prediction.settings import BoxSettings

FAST = ValSettings(image_size=96, workers=0)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Index:
    """Twelve images of several shapes, each with a bright rectangle that is its object."""
    root = tmp_path_factory.mktemp("set")
    (root / "images/val").mkdir(parents=True)
    (root / "labels/val").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        height, width = ((90, 120), (120, 90), (64, 160), (100, 100))[i % 4]
        picture = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        picture[20:50, 30:80] = (255, 128, i)
        cv2.imwrite(str(root / f"images/val/{i:03d}.png"), picture)
        box = (55 / width, 35 / height, 50 / width, 30 / height)
        (root / f"labels/val/{i:03d}.txt").write_text(f"{i % 2} " + " ".join(f"{v:.6f}" for v in box) + "\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/val\nval: images/val\nnames: [left, right]\n")
    return scan(load_data_config(root / "data.yaml"), "val", progress=False)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml("yolov5n", nc=2), {0: "left", 1: "right"})
    with torch.no_grad():
        for convolution in detector.head.m:  # sure enough of itself that boxes come out
            convolution.bias += torch.randn_like(convolution.bias) + 2
    return detector


@pytest.fixture(scope="module")
def predictor(detector: Detector) -> TorchPredictor:
    return TorchPredictor(detector)


class Told:
    """A predictor whose candidates are made of rows: centre x, y, width, height, certainty, classes."""

    def infer(self, images: Tensor, confidence: float) -> list[Candidates]:
        return [Candidates(corners_of(rows[:, :4]), rows[:, 5:] * rows[:, 4:5]) for rows in self.told(images)]

    def boxes(
        self, found: Any, settings: NmsSettings = PREDICTION, classes: Sequence[int] | None = None
    ) -> list[Tensor]:
        return non_max_suppression(found, settings, classes)

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        return self.boxes(self.infer(images, settings.conf), settings)

    def told(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError


class Oracle(Told):
    """A predictor that answers with the objects of the images above: their blue is full, nowhere else it is.

    With `doubt` it moves and weakens them by the image's number, their red, and adds boxes that are nothing; no two
    scores of a class are equal, so that no order decides.
    """

    nc = 2
    channels = 3
    strides = (8.0, 16.0, 32.0)
    device = torch.device("cpu")

    def __init__(self, image_size: tuple[int, int] | None = None, doubt: float = 0.0) -> None:
        self.names = {0: "left", 1: "right"}
        self.image_size, self.doubt = image_size, doubt
        self.shapes: list[tuple[int, ...]] = []

    def told(self, images: Tensor) -> list[Tensor]:
        self.shapes.append(tuple(images.shape))
        found = []
        for image in images:
            y, x = (image[2] > 0.9).nonzero(as_tuple=True)
            left, top, right, bottom = (int(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1))
            box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            number = round(float(image[0, (top + bottom) // 2, (left + right) // 2]) * 255)
            box[0] += self.doubt * (5 * number % 12)
            found.append(torch.tensor([[*box, 1 - 0.04 * self.doubt * number, 0.9, 0.8]]))
            if self.doubt:
                nothing = [
                    [box[0] * 0.5, box[1] * 1.5, 20 + k, 20.0, 0.93 - 0.21 * k - 0.013 * number, 0.7, 0.3]
                    for k in range(3)
                ]
                found[-1] = torch.cat((found[-1], torch.tensor(nothing)))
        return found


def test_boxes_come_back_to_the_original_image(index, tmp_path) -> None:
    settings = dataclasses.replace(FAST, save_json=True, single_cls=True)
    metrics = validate(Oracle(), index, settings, folder=tmp_path, progress=False)
    assert metrics.mAP50 == pytest.approx(1) and metrics.mAP50_95 > 0.8
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert {row["image_id"] for row in rows} == set(range(12))
    for row in rows:
        np.testing.assert_allclose(row["bbox"], [30, 20, 50, 30], atol=3)
    # In the square shape, too, and in a shape that the predictor prescribes.
    square = dataclasses.replace(settings, rectangular=False, save_json=False)
    assert validate(Oracle(), index, square, progress=False).mAP50 == pytest.approx(1)
    only = Oracle(image_size=(64, 96))
    assert validate(only, index, dataclasses.replace(FAST, single_cls=True), progress=False).mAP50 == pytest.approx(1)
    assert {shape[2:] for shape in only.shapes} == {(64, 96)}


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (128, 96)])
def test_height_and_width_are_the_shape_of_every_batch(index, size) -> None:
    oracle, settings = Oracle(), dataclasses.replace(FAST, image_size=size, single_cls=True, batch_size=5)
    metrics = validate(oracle, index, settings, progress=False)
    assert {shape[2:] for shape in oracle.shapes} == {size} and metrics.shape == (5, 3, *size)
    assert metrics.mAP50 == pytest.approx(1)
    # A file that takes this size alone gives the same.
    only = validate(Oracle(image_size=size), index, dataclasses.replace(settings, image_size=0), progress=False)
    assert only.to_dict() == metrics.to_dict()


def test_two_equal_numbers_are_one_without_rectangular_batches(index, predictor) -> None:
    square = dataclasses.replace(FAST, rectangular=False)
    twice = dataclasses.replace(FAST, image_size=(96, 96))
    found = [validate(predictor, index, settings, progress=False) for settings in (square, twice, FAST)]
    assert found[0].to_dict() == found[1].to_dict() and found[0].shape == found[1].shape
    assert found[2].to_dict() != found[0].to_dict(), "one number keeps its rectangular batches"


@pytest.mark.parametrize("size", [(96, 128), (128, 64)])
def test_a_prediction_at_height_and_width_finds_what_a_validation_finds(index, tmp_path, size) -> None:
    boxes, predictor = BoxSettings(conf=0.2), Oracle(doubt=1.0)
    settings = dataclasses.replace(FAST, image_size=size, nms=boxes.nms(), save_json=True)
    validate(predictor, index, settings, folder=tmp_path, progress=False)
    measured = json.loads((tmp_path / "predictions.json").read_text())
    found = BoxFinder(predictor, size, boxes, batch_size=4).boxes([read_image(file) for file in index.files])
    rows = [
        [image, int(row[5]), round(row[4], 5), round(row[0], 3), round(row[1], 3)]
        for image, of_image in enumerate(found)
        for row in of_image.double().tolist()
    ]
    assert len(rows) > 12
    told = [[row["image_id"], row["category_id"], row["score"], *row["bbox"][:2]] for row in measured]
    np.testing.assert_allclose(sorted(rows), sorted(told), atol=2e-3)


def test_golden_metrics(index) -> None:
    # Recorded before predictors were a protocol, from a detector whose decoding gave these rows.
    metrics = validate(Oracle(doubt=1.0), index, dataclasses.replace(FAST, coco=True), progress=False)
    assert list(metrics.to_dict().values()) == pytest.approx([0.34931976, 0.91666667, 0.44722034, 0.26370242], abs=1e-7)
    twelve = [metrics.coco[key] for key in ("AP75", "APs", "APm", "AR1", "AR100")]
    assert twelve == pytest.approx([0.23339586, -1.0, 0.28464446, 0.49166667, 0.55], abs=1e-7)


class Recorder(Oracle):
    """Finds nothing, and notes which images it saw by their darkest value."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def told(self, images: Tensor) -> list[Tensor]:
        self.seen += [round(float(image.min()) * 255) for image in images]
        return [torch.zeros(0, 7)] * len(images)


def test_images_of_equal_shape_keep_their_order(tmp_path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(100):
        picture = np.full((40, 60, 3) if i % 3 else (60, 40, 3), i, np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{i:03d}.png"), picture)
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [a]\n")
    pictures = scan(load_data_config(tmp_path / "data.yaml"), "val", cache=False, progress=False)
    recorder = Recorder()
    validate(recorder, pictures, FAST, progress=False)
    assert recorder.seen == [i for i in range(100) if i % 3] + [i for i in range(100) if i % 3 == 0]
    other = Recorder()
    validate(other, pictures, dataclasses.replace(FAST, order="stock"), progress=False)
    assert sorted(other.seen) == list(range(100)) and all(i % 3 for i in other.seen[:66])


def test_neither_detector_nor_index_is_touched(detector, index) -> None:
    detector.train()
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    files, labels = index.files, index.labels.copy()
    metrics = validate(TorchPredictor(detector), index, FAST, progress=False)
    assert detector.training and all(module.training for module in detector.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in detector.state_dict().items())
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert index.files == files and np.array_equal(index.labels, labels)
    assert metrics.images == 12 and metrics.instances == 12
    assert set(metrics.speed_ms) == {"preprocess", "inference", "nms"}


def test_the_batch_size_does_not_matter(predictor, index) -> None:
    results = [
        validate(predictor, index, dataclasses.replace(FAST, batch_size=size), progress=False) for size in (1, 4, 32)
    ]
    assert results[0].shape[0] == 1 and results[2].shape[0] == 12
    for other in results[1:]:
        assert other.to_dict() == pytest.approx(results[0].to_dict(), abs=1e-6)


def test_bf16_stays_close(detector, predictor, index) -> None:
    exact = validate(predictor, index, FAST, progress=False)
    rough = validate(TorchPredictor(detector, "bf16"), index, FAST, progress=False)
    assert rough.mAP50 == pytest.approx(exact.mAP50, abs=0.1)


def test_options(predictor, index, tmp_path) -> None:
    settings = dataclasses.replace(FAST, coco=True, plots=True, single_cls=True, save_json=True)
    metrics = validate(predictor, index, settings, folder=tmp_path, progress=False, limit=5)
    assert metrics.images == 5 and len(metrics.coco) == 12 and metrics.curves is not None
    assert [row.name for row in metrics.per_class] == ["object"]
    file = tmp_path / "predictions.json"
    assert {row["category_id"] for row in json.loads(file.read_text())} <= {0}
    validate(predictor, index, dataclasses.replace(settings, coco91=True), folder=tmp_path, progress=False, limit=5)
    assert {row["category_id"] for row in json.loads(file.read_text())} <= {1}
    with pytest.raises(UserError, match="folder"):
        validate(predictor, index, settings, progress=False)


def test_a_limit_spreads_evenly_and_always_alike(index) -> None:
    few = subset(index, 4)
    assert len(few.files) == 4 and few.files[0] == index.files[0] and few.files[-1] == index.files[-1]
    assert np.array_equal(few.labels_of(0), index.labels_of(0)) and few.files == subset(index, 4).files
    assert subset(index, None) is index and subset(index, 99) is index
    with pytest.raises(UserError, match="positive"):
        subset(index, 0)


def test_image_size_is_rounded_up_with_a_notice(caplog) -> None:
    assert check_image_size(640, 32) == 640 and not caplog.records
    assert check_image_size(630, 32) == 640 and "640" in caplog.text
    assert check_image_size(20, 32) == 64
    caplog.clear()
    assert check_image_size((384, 640), 32) == (384, 640) and not caplog.records
    assert check_image_size((380, 20), 32) == (384, 64)
    assert "Image size 380 x 20 is not a usable multiple of the stride 32: using 384 x 64." in caplog.text
    with pytest.raises(UserError, match="positive"):
        check_image_size(0, 32)
    with pytest.raises(UserError, match="image size is 640 x 0; it must be a positive number of pixels"):
        check_image_size((640, 0), 32)


def test_batches_fit_the_cache() -> None:
    cpu = torch.device("cpu")
    assert [auto_batch_size(size, cpu) for size in (1280, 640, 416, 320, 64)] == [1, 4, 8, 16, 32]
    assert [auto_batch_size(size, cpu) for size in ((720, 1280), (384, 640), (320, 640))] == [1, 4, 8]
    assert auto_batch_size(1280, torch.device("cuda")) == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": -1}, "--batch-size"),
        ({"image_size": -1}, "--image-size"),
        ({"image_size": (640, 10_000)}, "--image-size is 10000"),
        ({"workers": -1}, "workers"),
        ({"order": "random"}, "stable, stock"),
    ],
)
def test_senseless_options_are_refused(changes, words) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(FAST, **changes)


def test_labels_of_another_data_set_are_refused(index) -> None:
    other = TorchPredictor(Detector(Topology.from_yaml("yolov5n", nc=1)))
    with pytest.raises(UserError, match="class id 1, but the detector has 1 classes"):
        validate(other, index, FAST, progress=False)


PUBLISHED = {
    "train": (
        {"P": 0.572, "R": 0.508, "mAP50": 0.560, "mAP50-95": 0.361},
        (0.362, 0.563, 0.359, 0.175, 0.404, 0.536, 0.306, 0.493, 0.539, 0.294, 0.577, 0.672),
    ),
    "val": (
        {"P": 0.582, "R": 0.467, "mAP50": 0.529, "mAP50-95": 0.342},
        (0.343, 0.531, 0.369, 0.186, 0.327, 0.486, 0.301, 0.491, 0.533, 0.298, 0.497, 0.660),
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("split", ["train", "val"])
def test_published_figures_of_yolov5n_on_coco128(reference_dir: Path, split: str) -> None:
    config = load_data_config(reference_dir / "data/coco128/data.yaml")
    predictor = TorchPredictor(load_checkpoint(reference_dir / "weights/yolov5n.pt").build())
    index = scan(config, split, cache=False, progress=False)
    metrics = validate(predictor, index, ValSettings(coco=True, workers=0, order="stock"), progress=False)
    table, twelve = PUBLISHED[split]
    for name, value in metrics.to_dict().items():
        assert value == pytest.approx(table[name], abs=0.004 if name.startswith("mAP") else 0.02), name
    assert list(metrics.coco.values()) == pytest.approx(twelve, abs=0.003)


class GreyOracle(Oracle):
    """Finds the same objects by their grey value: they have 104 to 108, the background at most 60, the border 114."""

    channels = 1

    def told(self, images: Tensor) -> list[Tensor]:
        self.shapes.append(tuple(images.shape))
        found = []
        for image in images:
            y, x = ((image[0] * 255 > 85) & (image[0] * 255 < 112)).nonzero(as_tuple=True)
            left, top, right, bottom = (int(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1))
            box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            found.append(torch.tensor([[*box, 1.0, 0.9, 0.8]]))
        return found


@pytest.mark.parametrize("rectangular", [True, False])
def test_a_grey_predictor_is_shown_one_channel(index, rectangular: bool) -> None:
    oracle = GreyOracle()
    settings = dataclasses.replace(FAST, single_cls=True, rectangular=rectangular)
    metrics = validate(oracle, index, settings, progress=False)
    assert {shape[1] for shape in oracle.shapes} == {1}
    assert metrics.mAP50 == pytest.approx(1)


def test_a_predictor_of_four_channels_is_refused(index) -> None:
    oracle = Oracle()
    oracle.channels = 4
    with pytest.raises(UserError, match="images of 4 channels"):
        validate(oracle, index, FAST, progress=False)
    assert not oracle.shapes
