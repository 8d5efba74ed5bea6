"""Exported files: the same outputs, the promised interface, nothing left behind when it fails."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from secateur.deploy import onnx as export_module
from secateur.deploy.onnx import export_onnx
from secateur.deploy.session import OnnxModel
from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from secateur.errors import UserError

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("onnxruntime")


def lively(name: str, nc: int = 3) -> Detector:
    """A detector with random weights whose BatchNorm layers do something."""
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(name, nc=nc), {i: f"thing {i}" for i in range(nc)})
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return lively("yolov5n")


def test_outputs_interface_and_metadata(detector, tmp_path) -> None:
    detector.train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    result = export_onnx(detector, tmp_path / "a.onnx", (64, 96))
    assert detector.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert result.max_error <= 1e-3 and result.batch == 1 and result.size == (64, 96) and result.opset == 17
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]

    model = OnnxModel(result.path)
    assert model.names == {0: "thing 0", 1: "thing 1", 2: "thing 2"} and model.stride == 32
    assert model.shape == (1, 3, 64, 96)
    images = torch.rand(1, 3, 64, 96)
    detector.eval()
    with torch.no_grad():
        expected = detector.predict(images)
    np.testing.assert_allclose(model(images.numpy()), expected.numpy(), rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="takes images of shape"):
        model(np.zeros((1, 3, 64, 64), np.float32))


def test_any_number_of_images(detector, tmp_path) -> None:
    model = OnnxModel(export_onnx(detector, tmp_path / "a.onnx", 64, dynamic=True).path, threads=1)
    assert model.shape == (None, 3, 64, 64)
    assert [model(np.zeros((n, 3, 64, 64), np.float32)).shape[0] for n in (1, 2, 5)] == [1, 2, 5]


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov5s-transformer", "yolov5s-ghost"])
def test_other_topologies(name, tmp_path) -> None:
    assert export_onnx(lively(name), tmp_path / "a.onnx", 64, simplify=name != "yolov5s-ghost").max_error <= 1e-3


def test_zero_border_before_max_pooling_stays_zero(tmp_path) -> None:
    # ONNX Runtime fuses Pad and MaxPool wrongly; the border must count as zero for any number of images.
    result = export_onnx(lively("yolov3-tiny"), tmp_path / "a.onnx", 64, dynamic=True)
    assert result.max_error < 1e-4


def test_image_size_is_rounded_up_with_a_notice(detector, tmp_path, caplog) -> None:
    assert export_onnx(detector, tmp_path / "a.onnx", 70).size == (96, 96)
    assert "96" in caplog.text


def test_a_wrong_file_is_not_kept(detector, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export_module, "output_error", lambda *arguments: 0.5)
    with pytest.raises(UserError, match="differs from the detector"):
        export_onnx(detector, tmp_path / "a.onnx", 64)
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_a_difference(detector, tmp_path) -> None:
    model = OnnxModel(export_onnx(detector, tmp_path / "a.onnx", 64).path)
    other = lively("yolov5n").eval()
    with torch.no_grad():
        other.head.m[0].bias += 0.1
    assert export_module.output_error(other, model, [torch.rand(1, 3, 64, 64)]) > 1e-3


def test_missing_extra_is_one_sentence(detector, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UserError, match=r"secateur\[onnx\]"):
        export_onnx(detector, tmp_path / "a.onnx", 64)


def test_files_that_are_no_models_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="no file"):
        OnnxModel(tmp_path / "missing.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"not a model")
    with pytest.raises(UserError, match="not an ONNX model"):
        OnnxModel(tmp_path / "junk.onnx")


def test_export_describes_itself_as_plain_data(detector, tmp_path) -> None:
    fields = dataclasses.asdict(export_onnx(detector, tmp_path / "a.onnx", 64))
    assert fields["file_mb"] > 1 and fields["nodes"] > 100
