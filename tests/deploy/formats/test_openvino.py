"""OpenVINO: its folder, its precision, models of others, broken files, and no word to its makers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from export_formats import answered, expected_of
from secateur.deploy.exporters import export
from secateur.deploy.formats import openvino as exporter
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.machine import granted_cpus
from secateur.terminal import without_telemetry

with without_telemetry():
    openvino = pytest.importorskip("openvino")

SIZE = (64, 96)
NAME = "best_openvino_model"


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory) -> Path:
    return export(detector, tmp_path_factory.mktemp("files") / NAME, SIZE, ExportSettings(format="openvino")).path


@pytest.fixture
def mine(folder, tmp_path) -> Path:
    """A copy to break."""
    return shutil.copytree(folder, tmp_path / NAME)


def test_files_are_those_that_users_of_yolov5_know(detector, folder) -> None:
    assert sorted(file.name for file in folder.iterdir()) == ["metadata.yaml", "model.bin", "model.xml"]
    told = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert told["names"] == detector.names and told["stride"] == 32 and told["imgsz"] == list(SIZE)
    model = openvino.Core().read_model(folder / "model.xml")
    assert model.input(0).get_names() == {"images"} and model.output(0).get_names() == {"output0"}


def test_the_xml_alone_opens_too(folder, tmp_path) -> None:
    for name in ("model.xml", "model.bin"):
        shutil.copy(folder / name, tmp_path)
    alone, whole, images = open_predictor(tmp_path / "model.xml"), open_predictor(folder), torch.rand(1, 3, *SIZE)
    assert alone.names == whole.names and alone.strides == whole.strides
    torch.testing.assert_close(answered(alone, images)[0], answered(whole, images)[0], rtol=0, atol=0)


def precision_of(folder: Path, precision: str) -> object:
    model = open_predictor(folder, precision=precision)._request.get_compiled_model()
    return model.get_property("INFERENCE_PRECISION_HINT")


def test_it_computes_in_fp32_unless_told_otherwise(folder, caplog, monkeypatch) -> None:
    assert precision_of(folder, "fp32") == openvino.Type.f32
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert precision_of(folder, "bf16") == openvino.Type.bf16
    assert not caplog.text
    monkeypatch.setattr(openvino.Core, "get_property", lambda *arguments: ["FP32", "INT8"])
    assert precision_of(folder, "bf16") == openvino.Type.f32
    assert "This CPU does not support bf16" in caplog.text


def test_threads_are_those_that_are_granted(folder) -> None:
    wanted = min(granted_cpus(), 2)  # OpenVINO takes no more than there are
    predictor = open_predictor(folder, threads=wanted)
    model = predictor._request.get_compiled_model()
    assert (predictor.threads, model.get_property("INFERENCE_NUM_THREADS")) == (wanted, wanted)
    assert model.get_property("NUM_STREAMS") == 1
    assert open_predictor(folder).threads == 1  # OMP_NUM_THREADS of the tests


def test_an_existing_folder_is_left_alone(detector, tmp_path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not overwritten"):
        export(detector, tmp_path / NAME, SIZE, ExportSettings(format="openvino"))
    assert [file.name for file in tmp_path.rglob("*")] == [NAME, "mine.txt"]


def test_what_cannot_be_converted_is_told_in_a_sentence(detector, tmp_path, monkeypatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("Check failed:\nno such operator")

    monkeypatch.setattr(openvino, "convert_model", refuse)
    with pytest.raises(UserError, match="cannot be exported to OpenVINO: Check failed: no such operator"):
        export(detector, tmp_path / NAME, SIZE, ExportSettings(format="openvino"))
    assert list(tmp_path.iterdir()) == []


def test_without_openvino_a_sentence_says_what_to_install(detector, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"package openvino: pip install 'secateur\[openvino\]'"):
        export(detector, tmp_path / NAME, SIZE, ExportSettings(format="openvino"))
    with pytest.raises(UserError, match=r"OpenVINO is not installed \(pip install 'secateur\[openvino\]'"):
        open_predictor(folder)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_file_that_was_cut_off_is_refused(mine, name, share, capfd) -> None:
    content = (mine / name).read_bytes()
    (mine / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="OpenVINO cannot run ") as caught:
        open_predictor(mine)
    assert "\n" not in str(caught.value) and "src/" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_and_too_many_files_are_told(mine, tmp_path) -> None:
    with pytest.raises(UserError, match="no file"):
        open_predictor(tmp_path / "other_openvino_model")
    shutil.copy(mine / "model.xml", mine / "second.xml")
    with pytest.raises(UserError, match=r"contains 2 \.xml models"):
        open_predictor(mine)
    for file in mine.glob("*.xml"):
        file.unlink()
    with pytest.raises(UserError, match=r"contains 0 \.xml models"):
        open_predictor(mine)


def test_a_model_that_is_no_detector_is_refused(tmp_path) -> None:
    port = openvino.opset13.parameter([1, 3, 8, 8])
    openvino.save_model(openvino.Model([openvino.opset13.relu(port)], [port]), tmp_path / "a.xml")
    with pytest.raises(UserError, match="it maps 1 x 3 x 8 x 8 to 1 x 3 x 8 x 8, feature maps of the head"):
        open_predictor(tmp_path / "a.xml")


@pytest.mark.parametrize("tell", [True, False])
def test_a_folder_of_another_exporter(detector, tmp_path, tell: bool) -> None:
    """YOLOv5's own: rows first, then maps of the head, any names for files, few words in the metadata or none."""

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = detector.fused()

        def forward(self, images):
            raw = self.detector(images)
            return self.detector.decode(raw), raw[0]

    program = torch.jit.trace(Both().eval(), torch.zeros(1, 3, *SIZE), check_trace=False)
    folder = tmp_path / "yolov5n_openvino_model"
    openvino.save_model(openvino.convert_model(program, input=[[1, 3, *SIZE]]), folder / "yolov5n.xml")
    if tell:
        (folder / "metadata.yaml").write_text("stride: 32\nnames: {0: cat, 1: dog, 2: cow}\nimgsz: [64, 96]\n")
    predictor, images = open_predictor(folder), torch.rand(2, 3, *SIZE)
    assert list(predictor.names.values()) == (["cat", "dog", "cow"] if tell else ["class0", "class1", "class2"])
    assert max(predictor.strides) == 32 and predictor.image_size == SIZE
    expected = expected_of(detector, images)
    torch.testing.assert_close(answered(predictor, images), expected, rtol=2e-2, atol=2e-2)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize("text", ["{", "[1]", "names: 3", "!!python/object:os.system {}", BOMB + "names: [*j]", "\0"])
def test_metadata_that_makes_no_sense_says_nothing(mine, text: str) -> None:
    (mine / "metadata.yaml").write_text(text)
    predictor = open_predictor(mine)
    assert list(predictor.names.values()) == ["class0", "class1", "class2"]


def test_makers_learn_nothing(folder, tmp_path) -> None:
    code = f"""
import sys
from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.runtimes import open_predictor
assert not EXPORTERS["openvino"].missing()
open_predictor({str(folder)!r})
print("openvino" in sys.modules, "openvino_telemetry" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert result.stdout == "True False\n" and list(tmp_path.iterdir()) == []


def test_what_is_between_conversion_and_saving_is_free(detector, tmp_path) -> None:
    source, settings = Source.of(detector, SIZE), ExportSettings(format="openvino")
    model = exporter.converted(source, settings)
    model.set_friendly_name("mine")
    exporter.save(model, tmp_path, source.metadata(settings))
    assert open_predictor(tmp_path / "model.xml").names == detector.names


@pytest.mark.skipif(sys.platform != "linux", reason="the signal is one of Linux")
def test_a_signal_finds_a_living_program_after_two_models(folder) -> None:
    code = f"""
import gc, os, signal
from secateur.deploy.runtimes import open_predictor
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
first, second = open_predictor({str(folder)!r}), open_predictor({str(folder)!r})
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "handled\n")
