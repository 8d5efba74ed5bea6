"""PyTorch's predictor: what it answers for a network and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from secateur.errors import UserError
from secateur.evaluation.nms import corners_of, non_max_suppression
from secateur.evaluation.predictor import AnswerError, Predictor
from secateur.evaluation.settings import NmsSettings
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml("yolov5n", nc=2), {0: "left", 1: "right"})
    with torch.no_grad():
        for convolution in detector.head.m:
            convolution.bias += torch.randn_like(convolution.bias) + 2
    return detector


def test_it_answers_for_the_network(detector) -> None:
    predictor = TorchPredictor(detector)
    assert isinstance(predictor, Predictor)
    assert predictor.names == {0: "left", 1: "right"} and predictor.nc == 2 and max(predictor.strides) == 32
    assert predictor.image_size is None and predictor.device == torch.device("cpu")


def test_candidates_are_the_rows_of_the_network_above_the_confidence(detector) -> None:
    images = torch.rand(2, 3, 64, 96)
    detector.eval()
    with torch.no_grad():
        expected = detector.predict(images)
    for found, whole in zip(TorchPredictor(detector).infer(images, 0.01), expected, strict=True):
        rows = whole[whole[:, 4] > 0.01]
        assert 5 < len(rows) < len(whole)
        torch.testing.assert_close(found.boxes, corners_of(rows[:, :4]), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.scores, rows[:, 5:] * rows[:, 4:5], rtol=1e-3, atol=1e-3)


def test_boxes_are_candidates_after_suppression(detector) -> None:
    images, predictor, settings = torch.rand(2, 3, 64, 64), TorchPredictor(detector), NmsSettings(conf=0.1, max_det=7)
    for boxes, expected in zip(
        predictor.predict(images, settings), non_max_suppression(predictor.infer(images, 0.1), settings), strict=True
    ):
        assert torch.equal(boxes, expected) and 0 < len(boxes) <= 7


def test_the_network_may_change_afterwards(detector) -> None:
    images, predictor = torch.rand(1, 3, 64, 64), TorchPredictor(detector)
    before = predictor.infer(images, 0.1)[0].boxes
    detector.train()
    with torch.no_grad():
        detector.head.m[0].bias += 1
    assert detector.training and torch.equal(predictor.infer(images, 0.1)[0].boxes, before)


def test_precisions(detector, caplog) -> None:
    images = torch.rand(1, 3, 64, 64)
    assert {part.dtype for part in TorchPredictor(detector, "bf16").infer(images, 0.0)[0]} == {torch.float32}
    assert not caplog.records
    assert torch.equal(TorchPredictor(detector, "fp16").predict(images)[0], TorchPredictor(detector).predict(images)[0])
    assert "fp16 needs a GPU" in caplog.text
    with pytest.raises(UserError, match="fp8"):
        TorchPredictor(detector, "fp8")


@pytest.mark.parametrize("channels", [1, 3])
def test_it_tells_the_channels_of_its_images(detector, channels: int) -> None:
    network = Detector(replace(detector.topology, channels=channels), detector.names)
    assert TorchPredictor(network).channels == channels


def test_a_network_whose_boxes_are_no_numbers_says_so(detector) -> None:
    predictor = TorchPredictor(detector)
    with torch.no_grad():
        for convolution in predictor._network.head.m:
            assert convolution.bias is not None
            convolution.bias[::7] = float("nan")
    with pytest.raises(AnswerError, match="The network returns values that are not finite; use another checkpoint"):
        predictor.infer(torch.rand(1, 3, 64, 64), 0.1)
