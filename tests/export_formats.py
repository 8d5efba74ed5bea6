"""What tests of exports share: the formats whose files run here, and whether a file answers as its detector does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.runtimes import open_predictor
from secateur.families.yolov5.model import Detector


def _installed(name: str) -> object:
    missing = EXPORTERS[name].missing()
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"{missing} is not installed"))


FORMATS = [_installed(name) for name in ("onnx", "openvino", "torchscript")]


def same_rows(path: Path, detector: Detector, size: tuple[int, int]) -> None:
    """A file, or folder, answers images of its size as its detector does: boxes within .01 px, scores within .001."""
    images = torch.rand(3, detector.architecture.channels, *size)
    with torch.no_grad():
        expected = detector.eval().predict(images)
    found = torch.stack(list(open_predictor(path).rows(images, -1.0)))
    torch.testing.assert_close(found[..., :4], expected[..., :4], rtol=0, atol=1e-2)
    torch.testing.assert_close(found[..., 4:], expected[..., 4:], rtol=0, atol=1e-3)
