"""What a file can hold: rows, maps, detections; fp32 and fp16; any number and size of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from export_formats import answered, expected_of
from secateur.deploy.exporters import check_export, export
from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.nms import non_max_suppression
from secateur.families.yolov5.deploy.network import FlatDecoded, HeadMaps
from secateur.families.yolov5.model import Detector

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("onnxruntime")

SIZE = (64, 96)


@pytest.fixture(scope="module")
def seeing(lively: Callable[..., Detector]) -> Detector:
    """A detector that is sure of a part of its boxes, whatever the image, and never as sure of two of them."""
    detector = lively("yolov5n").eval()
    with torch.no_grad():
        for convolution in detector.head.m:
            convolution.weight *= 10
            convolution.bias[:] = 0
    return detector


def images(count: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def near(found: Tensor, expected: Tensor, boxes: float, scores: float) -> None:
    torch.testing.assert_close(found[..., :4], expected[..., :4], rtol=boxes, atol=boxes)
    torch.testing.assert_close(found[..., 4:], expected[..., 4:], rtol=0, atol=scores)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n6", "yolov3-tiny"])
def test_flat_decoding_is_the_decoding(lively, name: str) -> None:
    detector = lively(name).eval()
    size = (128, 192)
    with torch.no_grad():
        expected, found = detector.predict(images(2, size)), FlatDecoded(detector, size)(images(2, size))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"dynamic": True}, {"any_size": True}, {"dynamic": True, "any_size": True}])
@pytest.mark.parametrize("output", ["decoded", "raw"])
def test_rows_from_every_kind_of_file(seeing, tmp_path: Path, settings: dict, output: str) -> None:
    file = export(seeing, tmp_path / "a.onnx", SIZE, ExportSettings(output=output, **settings)).path
    predictor = open_predictor(file)
    near(answered(predictor, images()), expected_of(seeing, images()), 1e-3, 1e-4)
    if settings.get("any_size"):
        assert predictor.image_size is None
        other = images(1, (96, 128))
        near(answered(predictor, other), expected_of(seeing, other), 1e-3, 1e-4)
    else:
        assert predictor.image_size == SIZE


def test_raw_maps_are_what_the_last_convolutions_give(seeing, tmp_path: Path) -> None:
    file = export(seeing, tmp_path / "a.onnx", SIZE, ExportSettings(output="raw")).path
    maps = open_predictor(file).outputs(images(1))
    assert [y.shape for y in maps] == [(1, 24, 8, 12), (1, 24, 4, 6), (1, 24, 2, 3)]
    with torch.no_grad():
        for ours, theirs in zip(maps, HeadMaps(seeing)(images(1)), strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
def test_suppression_inside_gives_our_boxes(seeing, tmp_path: Path, batch: int) -> None:
    settings = ExportSettings(output="detections", batch_size=batch, conf=0.2, iou=0.5, max_det=20)
    predictor = open_predictor(export(seeing, tmp_path / "a.onnx", SIZE, settings).path)
    assert isinstance(predictor, FilePredictor)
    with torch.no_grad():
        expected = non_max_suppression(seeing.candidates(seeing(images(3)), settings.conf), settings.nms)
    assert min(len(boxes) for boxes in expected) > 3
    [found] = predictor.outputs(images(3))
    assert found.shape == (3, 20, 6)
    for ours, theirs, again in zip(found, expected, predictor.predict(images(3), settings.nms), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours[: len(theirs)]), theirs, rtol=1e-3, atol=1e-3)
        assert not ours[len(theirs) :].any()
        torch.testing.assert_close(again, theirs, rtol=1e-3, atol=1e-3)


def test_half_precision_halves_the_file_and_keeps_the_pixels(seeing, tmp_path: Path) -> None:
    whole, half = (
        export(seeing, tmp_path / f"{precision}.onnx", SIZE, ExportSettings(precision=precision))
        for precision in ("fp32", "fp16")
    )
    assert half.file_mb < 0.6 * whole.file_mb and 1e-5 < half.max_error < 5e-2
    near(answered(open_predictor(half.path), images()), expected_of(seeing, images()), 2e-2, 2e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ExportSettings(format="yolov5", precision="fp16"), "YOLOv5 does not support precision fp16. Choose fp32"),
        (ExportSettings(format="yolov5", output="raw"), "YOLOv5 does not support output raw. Choose decoded"),
        (ExportSettings(format="yolov5", any_size=True), "Remove --any-size"),
        (ExportSettings(precision="int8"), "int8 calibration needs images"),
        (ExportSettings(output="detections", dynamic=True), "Remove --dynamic"),
    ],
)
def test_what_a_format_cannot_hold_is_said(seeing, tmp_path: Path, settings: ExportSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(seeing, tmp_path / "a", SIZE, settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"precision": "fp8"}, {"output": "boxes"}, {"conf": 1.5}, {"max_det": 0}])
def test_senseless_options_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError):
        ExportSettings(**wrong)


def test_several_formats_are_each_checked() -> None:
    both = ExportSettings(format="onnx, yolov5,onnx", opset=18).each()
    assert [settings.format for settings in both] == ["onnx", "yolov5"] and both[0].opset == 18
    assert [check_export(settings).title for settings in both] == ["ONNX", "YOLOv5"]
    with pytest.raises(UserError, match="--format is empty"):
        ExportSettings(format=" ,").each()
