"""Validation: what it must not touch, what must not matter, and the published figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from secateur.data.config import load_data_config
from secateur.data.index import Index, scan
from secateur.detector.checkpoint import load_checkpoint
from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from secateur.errors import UserError
from secateur.evaluation.validate import ValSettings, auto_batch_size, check_image_size, subset, validate

FAST = ValSettings(image_size=96, workers=0)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Index:
    """Twelve pictures of several shapes, each with a bright rectangle that is its object."""
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


def oracle() -> Detector:
    """Answers with the objects of the pictures above: their blue is full, which it is nowhere else."""

    def find(images: Tensor) -> list[Tensor]:
        rows = []
        for blue in images[:, 2] > 0.9:
            y, x = blue.nonzero(as_tuple=True)
            left, top, right, bottom = x.min(), y.min(), x.max() + 1, y.max() + 1
            rows.append([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 1.0, 0.9, 0.8])
        return [torch.tensor(rows)[:, None]]

    network = Detector(Topology.from_yaml("yolov5n", nc=2))
    network.fused = lambda: network
    network.forward = find
    network.decode_above = lambda raw, confidence: list(raw[0])
    return network


def test_boxes_come_back_to_the_original_image(index, tmp_path) -> None:
    settings = dataclasses.replace(FAST, save_json=tmp_path / "p.json", single_cls=True)
    metrics = validate(oracle(), index, settings, progress=False)
    assert metrics.mAP50 == pytest.approx(1) and metrics.mAP50_95 > 0.8
    rows = json.loads((tmp_path / "p.json").read_text())
    assert {row["image_id"] for row in rows} == set(range(12))
    for row in rows:
        np.testing.assert_allclose(row["bbox"], [30, 20, 50, 30], atol=3)
    # In the square shape, too.
    square = validate(oracle(), index, dataclasses.replace(settings, rectangular=False, save_json=None), progress=False)
    assert square.mAP50 == pytest.approx(1)


def test_neither_detector_nor_index_is_touched(detector, index) -> None:
    detector.train()
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    files, labels = index.files, index.labels.copy()
    metrics = validate(detector, index, FAST, progress=False)
    assert detector.training and all(module.training for module in detector.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in detector.state_dict().items())
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert index.files == files and np.array_equal(index.labels, labels)
    assert metrics.images == 12 and metrics.instances == 12
    assert set(metrics.speed_ms) == {"preprocess", "inference", "nms"}


def test_the_batch_size_does_not_matter(detector, index) -> None:
    results = [
        validate(detector, index, dataclasses.replace(FAST, batch_size=size), progress=False) for size in (1, 4, 32)
    ]
    assert results[0].shape[0] == 1 and results[2].shape[0] == 12
    for other in results[1:]:
        assert other.to_dict() == pytest.approx(results[0].to_dict(), abs=1e-6)


def test_bf16_stays_close(detector, index) -> None:
    exact = validate(detector, index, FAST, progress=False)
    rough = validate(detector, index, dataclasses.replace(FAST, precision="bf16"), progress=False)
    assert rough.mAP50 == pytest.approx(exact.mAP50, abs=0.1)


def test_options(detector, index, tmp_path) -> None:
    settings = dataclasses.replace(FAST, coco=True, plots=True, single_cls=True, save_json=tmp_path / "p.json")
    metrics = validate(detector, index, settings, progress=False, limit=5)
    assert metrics.images == 5 and len(metrics.coco) == 12 and metrics.curves is not None
    assert [row.name for row in metrics.per_class] == ["object"]
    assert {row["category_id"] for row in json.loads((tmp_path / "p.json").read_text())} <= {0}


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
    with pytest.raises(UserError, match="positive"):
        check_image_size(0, 32)


def test_batches_fit_the_cache() -> None:
    cpu = torch.device("cpu")
    assert [auto_batch_size(size, cpu) for size in (1280, 640, 416, 320, 64)] == [1, 4, 8, 16, 32]
    assert auto_batch_size(1280, torch.device("cuda")) == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conf": 1.5}, "between 0 and 1"),
        ({"iou": -0.1}, "between 0 and 1"),
        ({"max_det": 0}, "max_det"),
        ({"batch_size": -1}, "batch_size"),
        ({"precision": "fp8"}, "fp8"),
    ],
)
def test_senseless_options_are_refused(detector, index, changes, words) -> None:
    with pytest.raises(UserError, match=words):
        validate(detector, index, dataclasses.replace(FAST, **changes), progress=False)


def test_labels_of_another_data_set_are_refused(index) -> None:
    with pytest.raises(UserError, match="class id 1 but the detector knows 1 classes"):
        validate(Detector(Topology.from_yaml("yolov5n", nc=1)), index, FAST, progress=False)


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
    detector = load_checkpoint(reference_dir / "weights/yolov5n.pt").detector()
    index = scan(config, split, cache=False, progress=False)
    metrics = validate(detector, index, ValSettings(coco=True, workers=0), progress=False)
    table, twelve = PUBLISHED[split]
    for name, value in metrics.to_dict().items():
        assert value == pytest.approx(table[name], abs=0.004 if name.startswith("mAP") else 0.02), name
    assert list(metrics.coco.values()) == pytest.approx(twelve, abs=0.003)
