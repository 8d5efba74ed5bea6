"""Exported files: the same outputs, the promised interface, nothing printed, nothing left behind when it fails."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from secateur.deploy import check
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.formats.onnx import writer as onnx_exporter
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("onnxruntime")


def test_outputs_and_what_is_said_of_them(detector, tmp_path) -> None:
    detector.train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    result = export(detector, tmp_path / "a.onnx", (64, 96))
    assert detector.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    said = result.to_dict()
    assert said.pop("max_error") <= 1e-3 and said.pop("nodes") > 100 and said.pop("file_mb") > 1
    assert said == {"file": "a.onnx", "size": [64, 96], "batch": 1, "precision": "fp32", "opset": 17}


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov5s-transformer", "yolov5s-ghost"])
def test_other_topologies(lively, name, tmp_path) -> None:
    settings = ExportSettings(simplify=name != "yolov5s-ghost")
    assert export(lively(name), tmp_path / "a.onnx", 64, settings).max_error <= 1e-3


def test_zero_border_before_max_pooling_stays_zero(lively, tmp_path) -> None:
    # ONNX Runtime fuses Pad and MaxPool wrongly; the border must count as zero for any number of images.
    result = export(lively("yolov3-tiny"), tmp_path / "a.onnx", 64, ExportSettings(dynamic=True))
    assert result.max_error < 1e-4 and result.batch == 0


class Plain(torch.nn.Module):
    """A network of no family: two outputs, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 7, 8, 8)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body(images)
        return {"maps": maps, "means": maps.mean((2, 3))}


@pytest.mark.parametrize("settings", [{}, {"dynamic": True}, {"any_size": True}, {"precision": "fp16"}])
def test_networks_of_any_make_give_their_own_outputs(tmp_path, settings) -> None:
    network, images = Plain(), torch.rand(2, 3, 32, 16)
    result = export(network, tmp_path / "a.onnx", (32, 16), ExportSettings(**settings))
    opened = open_predictor(result.path)
    assert (opened.names, opened.nc, opened.decoder, opened.metadata.family) == ({}, 0, None, "module")
    tolerance = 2e-2 if "precision" in settings else 1e-5
    with torch.no_grad():
        for ours, theirs in zip(opened.outputs(images), network(images).values(), strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=0, atol=tolerance)
    with pytest.raises(UserError, match=r"2 outputs of \S*a\.onnx are not boxes. Read them with `outputs`"):
        opened.predict(images)


@pytest.mark.parametrize("output", ["raw", "detections"])
def test_other_outputs_of_a_network_of_no_family_are_refused(tmp_path, output: str) -> None:
    with pytest.raises(UserError, match=f"has no output {output}: .* Omit --output"):
        export(Plain(), tmp_path / "a.onnx", 32, ExportSettings(output=output))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_yolov5_is_of_its_family_alone(tmp_path) -> None:
    with pytest.raises(UserError, match=r"needs a network of the family 'yolov5', not 'module'"):
        export(Plain(), tmp_path / "a.pt", 32, ExportSettings(format="yolov5"))
    assert list(tmp_path.iterdir()) == []


class Broken(torch.nn.Conv2d):
    """It answers through a function of the test's."""

    def __init__(self, answer) -> None:
        super().__init__(3, 7, 8, 8)
        self.answer = answer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer(super().forward(images))


def constant(raw: torch.Tensor) -> torch.Tensor:
    """Leaves the graph: the images have no part in what is traced."""
    return torch.from_numpy(raw.numpy()[:, :, 0])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda raw: 1 / 0, "cannot be exported to ONNX: division by zero"),
        (lambda raw: None, "cannot be exported to ONNX: it returns no tensor"),
        (constant, "takes no images"),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_sentence(tmp_path, answer, reason) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        export(Broken(answer), tmp_path / "a.onnx", 32)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_image_size_is_rounded_up_with_a_notice(detector, tmp_path, caplog) -> None:
    assert export(detector, tmp_path / "a.onnx", 70).size == (96, 96)
    assert "96" in caplog.text


@pytest.mark.parametrize("error", [0.5, float("inf"), float("nan")])
def test_a_wrong_file_is_not_kept(detector, tmp_path, monkeypatch, error) -> None:
    monkeypatch.setattr(check, "output_error", lambda *arguments: error)
    with pytest.raises(UserError, match="differs from the network"):
        export(detector, tmp_path / "a.onnx", 64)
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_a_difference(detector, lively, tmp_path) -> None:
    file = open_predictor(export(detector, tmp_path / "a.onnx", 64).path)
    other = lively("yolov5n").eval()
    with torch.no_grad():
        other.head.m[0].bias += 0.1
    images = [torch.rand(1, 3, 64, 64)]
    assert check.output_error(Source.of(other, (64, 64)), file, images, ExportSettings()) > 1e-3
    assert check.output_error(Source.of(detector, (64, 64)), file, images, ExportSettings()) <= 1e-3


@pytest.mark.parametrize("opset", [1, 8, 999])
def test_opsets_that_do_not_exist_are_refused_in_a_sentence(detector, tmp_path, opset: int) -> None:
    with pytest.raises(UserError, match=rf"ONNX opset {opset} is not available\. Choose one from 9 to") as caught:
        export(detector, tmp_path / "a.onnx", 64, ExportSettings(opset=opset))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_another_opset_than_the_asked_one_is_not_written(detector, tmp_path, monkeypatch) -> None:
    trace = onnx_exporter._trace
    older = ExportSettings(opset=12)
    monkeypatch.setattr(onnx_exporter, "_trace", lambda *arguments: trace(*arguments[:3], older, *arguments[4:]))
    with pytest.raises(UserError, match="opset 17; it produces opset 12"):
        export(detector, tmp_path / "a.onnx", 64)


def test_missing_extra_is_one_sentence(detector, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxslim", None)
    assert EXPORTERS["onnx"].missing() == "onnxslim"
    with pytest.raises(UserError, match=r"package onnxslim: pip install 'secateur\[onnx\]'"):
        export(detector, tmp_path / "a.onnx", 64)


def test_unknown_formats_and_senseless_settings(detector, tmp_path) -> None:
    with pytest.raises(UserError, match=r"Unknown export format 'tflight'; choose one of .*onnx"):
        export(detector, tmp_path / "a", 64, ExportSettings(format="tflight"))
    with pytest.raises(UserError, match="--batch-size is 0"):
        ExportSettings(batch_size=0)


def test_nothing_is_printed_not_even_where_the_exporter_stumbles(tmp_path) -> None:
    # Opset 24 is beyond the TorchScript exporter, which then prints its graph, past Python, and the newer one reports
    # each of its steps.
    code = f"""
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
from secateur.deploy.exporters import export
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
detector = Detector(Topology.from_yaml("yolov5n", nc=3))
export(detector, {str(tmp_path / "a.onnx")!r}, 64, ExportSettings(opset=24))
print("done")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_a_detector_of_nan_is_no_fault_of_the_file(lively, tmp_path) -> None:
    broken = lively("yolov5n")
    with torch.no_grad():
        broken.model[3].conv.weight[0] = float("nan")
    with pytest.raises(UserError, match="The network's own outputs are NaN") as caught:
        export(broken, tmp_path / "x.torchscript", 64, ExportSettings(format="torchscript"))
    assert "opset" not in str(caught.value)
    assert not list(tmp_path.iterdir())
