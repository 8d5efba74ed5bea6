"""LiteRT files: the same outputs from images as phones give them, and what the file says of itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from export_formats import same_answers
from law_subjects import subject_named
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.metadata import Metadata
from secateur.deploy.runtimes import open_predictor, runtime_of
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.pruning.surgery import cut

interpreter = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("litert_torch")


def settings(**changes) -> ExportSettings:
    return ExportSettings(format="litert", **changes)


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory) -> Path:
    """For images of 64 x 96 pixels."""
    path = tmp_path_factory.mktemp("litert") / "a.tflite"
    return export(detector, path, (64, 96), settings(), about={"license": "MIT"}).path


def test_outputs_and_what_is_said_of_them(detector, file) -> None:
    predictor = open_predictor(file)
    assert predictor.names == detector.names and predictor.strides == (8.0, 16.0, 32.0)
    assert predictor.image_size == (64, 96) and runtime_of(file).title == "LiteRT"
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["metadata.json"]
        text = archive.read("metadata.json").decode()
    assert '"license": "MIT"' in text and '"input": "NHWC"' in text
    assert Metadata.of_json(text).size == (64, 96)
    same_answers(file, detector, (64, 96))


def test_images_are_channels_last_as_cameras_give_them(detector, file) -> None:
    opened = interpreter.Interpreter(model_path=str(file))
    opened.allocate_tensors()
    assert opened.get_input_details()[0]["shape"].tolist() == [1, 64, 96, 3]
    image = np.random.default_rng(0).random((1, 64, 96, 3), dtype=np.float32)
    opened.set_tensor(opened.get_input_details()[0]["index"], image)
    opened.invoke()
    with torch.no_grad():
        expected = detector.eval().predict(torch.from_numpy(image).permute(0, 3, 1, 2))
    found = opened.get_tensor(opened.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov5n6"])
def test_other_topologies(lively, name, tmp_path) -> None:
    detector = lively(name)
    same_answers(export(detector, tmp_path / "a.tflite", 128, settings()).path, detector, (128, 128))


def test_a_cut_network_for_two_images(tmp_path) -> None:
    subject = subject_named("yolov5n")
    small = cut(subject.detector, subject.graph, subject.random_plan(6))
    path = export(small, tmp_path / "a.tflite", subject.size, settings(batch_size=2)).path
    same_answers(path, small, (subject.size,) * 2)


def test_maps_of_the_head_are_decoded_where_they_are_read(detector, tmp_path) -> None:
    path = export(detector, tmp_path / "a.tflite", 64, settings(output="raw")).path
    shapes = [output.shape for output in open_predictor(path).outputs(torch.rand(2, 3, 64, 64))]
    assert shapes == [(2, 24, 8, 8), (2, 24, 4, 4), (2, 24, 2, 2)]
    same_answers(path, detector, (64, 64))


def test_a_converter_that_fails_is_one_sentence(detector, tmp_path, monkeypatch) -> None:
    import litert_torch

    def convert(*arguments: object) -> None:
        raise RuntimeError("no\nway")

    monkeypatch.setattr(litert_torch, "convert", convert)
    with pytest.raises(UserError, match=r"cannot be exported to LiteRT: no way\.$"):
        export(detector, tmp_path / "a.tflite", 64, settings())
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_one_sentence(detector, file, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    assert EXPORTERS["litert"].missing() == "litert_torch"
    with pytest.raises(UserError, match=r"package litert_torch: pip install 'secateur\[litert\]'"):
        export(detector, tmp_path / "a.tflite", 64, settings())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"ai-edge-litert is not installed \(pip install ai-edge-litert"):
        open_predictor(file)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7])
def test_files_that_are_broken(file, tmp_path, share: float) -> None:
    with pytest.raises(UserError, match="no file"):
        open_predictor(tmp_path / "missing.tflite")
    content = file.read_bytes()
    (tmp_path / "a.tflite").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="LiteRT cannot run") as caught:
        open_predictor(tmp_path / "a.tflite")
    assert "\n" not in str(caught.value)


def test_a_file_that_says_nothing_of_itself_is_recognised_by_its_rows(file, tmp_path) -> None:
    content = file.read_bytes()
    (tmp_path / "a.tflite").write_bytes(content[: content.rindex(b"PK\x03\x04")])
    predictor = open_predictor(tmp_path / "a.tflite")
    assert dict(predictor.names) == {0: "class0", 1: "class1", 2: "class2"} and predictor.strides == (8, 16, 32)


def test_nothing_is_printed(file) -> None:
    code = f"""
import torch
from secateur.deploy.runtimes import open_predictor
open_predictor({str(file)!r}, threads=2).infer(torch.rand(1, 3, 64, 96), 0.1)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
