"""The ending of a file's name is that of its format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import secateur
from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.exporting import format_of
from secateur.deploy.runtimes import open_predictor, runtime_of
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint


def test_every_format_is_known_by_its_ending() -> None:
    for name, exporter in EXPORTERS.items():
        assert (
            format_of(f"runs/Best{exporter.suffix}", family=name) == format_of(f"best{exporter.suffix}", name) == name
        )
        assert format_of(f"BEST{exporter.suffix}".upper(), family=name) == name
    assert format_of("best.pt") == "yolov5"


@pytest.mark.parametrize("file", ["best", "best.engine", "best.safetensors", "onnx", "best.onnx.zip"])
def test_other_endings_are_refused(file: str) -> None:
    with pytest.raises(UserError, match=rf"No export format has the ending of {file}\. Choose .* \.onnx \(onnx\)"):
        format_of(file)


def test_an_ending_of_another_format_is_refused() -> None:
    with pytest.raises(UserError, match=r"^best\.pt does not end in \.onnx, the ending of format onnx. Change"):
        format_of("best.pt", "onnx")
    with pytest.raises(UserError, match="onnx,openvino"):
        format_of("best.onnx", "onnx,openvino")


@pytest.mark.parametrize("name", ["best.torchscript", "best.pt", "best.onnx", "best_openvino_model"])
def test_the_api_writes_what_the_name_says(name: str, detector: Detector, tmp_path: Path) -> None:
    kind = format_of(name)
    if missing := EXPORTERS[kind].missing():
        pytest.skip(f"{missing} is not installed")
    file = secateur.export(Checkpoint.of(detector), tmp_path / name, image_size=64)
    assert runtime_of(file) is runtime_of(f"x{EXPORTERS[kind].suffix}")
    assert dict(open_predictor(file).names) == detector.names  # by the runtime of that ending, which takes nothing else
    if name == "best.pt":
        loaded = load_checkpoint(file).build().eval()
        images = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(loaded.predict(images), detector.eval().predict(images))


def test_the_api_leaves_nothing_under_a_name_that_it_refuses(detector: Detector, tmp_path: Path) -> None:
    for name, options in (("best.engine", {}), ("best.torchscript", {"format": "onnx"})):
        with pytest.raises(UserError, match=name):
            secateur.export(Checkpoint.of(detector), tmp_path / name, image_size=64, **options)
    assert list(tmp_path.iterdir()) == []
