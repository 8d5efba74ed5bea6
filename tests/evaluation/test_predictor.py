"""Predictors: the protocol, what PyTorch's answers and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from secateur.errors import UserError
from secateur.evaluation.nms import non_max_suppression
from secateur.evaluation.predictor import AnswerError, Predictor, TorchPredictor, check_rows
from secateur.evaluation.settings import NmsSettings
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


def test_rows_are_those_of_the_network_above_the_confidence(detector) -> None:
    images = torch.rand(2, 3, 64, 96)
    detector.eval()
    with torch.no_grad():
        expected = detector.predict(images)
    for rows, whole in zip(TorchPredictor(detector).rows(images, 0.5), expected, strict=True):
        torch.testing.assert_close(rows, whole[whole[:, 4] > 0.5], rtol=1e-3, atol=1e-3)


def test_boxes_are_rows_after_suppression(detector) -> None:
    images, predictor, settings = torch.rand(2, 3, 64, 64), TorchPredictor(detector), NmsSettings(conf=0.1, max_det=7)
    for boxes, expected in zip(
        predictor.predict(images, settings), non_max_suppression(predictor.rows(images, 0.1), settings), strict=True
    ):
        assert torch.equal(boxes, expected) and 0 < len(boxes) <= 7


def test_the_network_may_change_afterwards(detector) -> None:
    images, predictor = torch.rand(1, 3, 64, 64), TorchPredictor(detector)
    before = predictor.rows(images, 0.1)[0]
    detector.train()
    with torch.no_grad():
        detector.head.m[0].bias += 1
    assert detector.training and torch.equal(predictor.rows(images, 0.1)[0], before)


def test_precisions(detector, caplog) -> None:
    images = torch.rand(1, 3, 64, 64)
    assert TorchPredictor(detector, "bf16").rows(images, 0.0)[0].dtype == torch.float32
    assert not caplog.records
    assert torch.equal(
        TorchPredictor(detector, "fp16").rows(images, 0.1)[0], TorchPredictor(detector).rows(images, 0.1)[0]
    )
    assert "fp16 needs a GPU" in caplog.text
    with pytest.raises(UserError, match="fp8"):
        TorchPredictor(detector, "fp8")


@pytest.mark.parametrize("channels", [1, 3])
def test_it_tells_the_channels_of_its_images(detector, channels: int) -> None:
    network = Detector(replace(detector.topology, channels=channels), detector.names)
    assert TorchPredictor(network).channels == channels


GOOD = [[8.0, 8.0, 4.0, 4.0, 0.9, 1.0, 0.0], [8.0, 8.0, 0.0, 0.0, 1.05, -0.05, 0.0]]


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (0, float("nan"), "values that are not finite"),
        (3, float("inf"), "values that are not finite"),
        (6, float("-inf"), "values that are not finite"),
        (2, -0.01, "a box of negative width or height"),
        (3, -9.0, "a box of negative width or height"),
        (4, 2.7, r"scores outside 0\.\.1"),
        (5, -1.2, r"scores outside 0\.\.1"),
    ],
)
def test_rows_that_cannot_be_boxes_are_refused(place: int, value: float, fault: str) -> None:
    good = torch.tensor(GOOD)
    check_rows([good, good[:0], good], "a.onnx", "export it anew")
    bad = good.clone()
    bad[1, place] = value
    with pytest.raises(AnswerError, match=rf"^a\.onnx gives {fault}; export it anew\.$") as caught:
        check_rows([good, good[:0], bad], "a.onnx", "export it anew")
    assert caught.value.image == 2
    assert f"{fault.replace(chr(92), '')} for b.jpg; export it anew." in str(caught.value.named("b.jpg"))


def test_large_numbers_are_no_fault_by_their_sum() -> None:
    rows = torch.full((9, 7), 3e38)
    rows[:, 4:] = 1
    check_rows([rows], "a.onnx", "export it anew")


def test_a_network_whose_boxes_are_no_numbers_says_so(detector) -> None:
    predictor = TorchPredictor(detector)
    with torch.no_grad():
        for convolution in predictor._network.head.m:
            assert convolution.bias is not None
            convolution.bias[::7] = float("nan")
    with pytest.raises(AnswerError, match="The network gives values that are not finite; take another checkpoint"):
        predictor.rows(torch.rand(1, 3, 64, 64), 0.1)
