"""What tests of exports share: the formats whose files run here, and whether a file answers as its detector does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.runtimes import open_predictor
from secateur.families.yolov5.model import Detector


def _installed(name: str) -> object:
    missing = EXPORTERS[name].missing()
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"{missing} is not installed"))


FORMATS = [_installed(name) for name in ("onnx", "openvino", "torchscript")]


def answered(predictor: Any, images: Tensor) -> Tensor:
    """What a predictor says of images before any suppression, [B, N, 4 + nc]: centre x, y, width, height, scores."""
    found = []
    for boxes, scores in predictor.infer(images, -1.0):
        found.append(torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], scores), 1))
    return torch.stack(found)


def expected_of(detector: Detector, images: Tensor) -> Tensor:
    """The same, from the rows of a detector."""
    with torch.no_grad():
        rows = detector.eval().predict(images)
    return torch.cat((rows[..., :4], rows[..., 5:] * rows[..., 4:5]), -1)


def same_answers(path: Path, detector: Detector, size: tuple[int, int]) -> None:
    """A file, or folder, answers images of its size as its detector does: boxes within .01 px, scores within .001."""
    images = torch.rand(3, detector.architecture.channels, *size)
    expected, found = expected_of(detector, images), answered(open_predictor(path), images)
    torch.testing.assert_close(found[..., :4], expected[..., :4], rtol=0, atol=1e-2)
    torch.testing.assert_close(found[..., 4:], expected[..., 4:], rtol=0, atol=1e-3)
