"""ncnn folders: the same outputs, two files and what they say, nothing left behind when it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from export_formats import answered, same_answers
from law_subjects import subject_named
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.formats import ncnn as exporter
from secateur.deploy.runtimes import open_predictor, runtime_of
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.pruning.surgery import cut

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")


def settings(**changes) -> ExportSettings:
    return ExportSettings(format="ncnn", **changes)


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory) -> Path:
    """For images of 64 x 96 pixels."""
    path = tmp_path_factory.mktemp("ncnn") / "a_ncnn_model"
    return export(detector, path, (64, 96), settings(), about={"license": "MIT"}).path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """One to spoil."""
    path = tmp_path / "b_ncnn_model"
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def test_outputs_and_what_is_said_of_them(detector, folder) -> None:
    assert sorted(file.name for file in folder.iterdir()) == ["metadata.yaml", "model.ncnn.bin", "model.ncnn.param"]
    said = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert (said["imgsz"], said["batch"], said["output"], said["license"]) == ([64, 96], 1, "decoded", "MIT")
    predictor = open_predictor(folder)
    assert predictor.names == detector.names and predictor.strides == (8.0, 16.0, 32.0)
    assert predictor.image_size == (64, 96) and predictor.device == torch.device("cpu")
    assert {"license": "MIT", **predictor.metadata.to_dict()} == said
    assert runtime_of(folder).title == "ncnn"
    same_answers(folder, detector, (64, 96))


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov5n6"])
def test_other_topologies(lively, name, tmp_path) -> None:
    detector = lively(name)
    result = export(detector, tmp_path / "a_ncnn_model", 128, settings())
    assert result.details["layers"] > 30 and result.notes
    same_answers(result.path, detector, (128, 128))


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s-ghost", "odd", "grey"])
def test_a_cut_network(name, tmp_path) -> None:
    subject = subject_named(name)
    small = cut(subject.detector, subject.graph, subject.random_plan(6))
    same_answers(export(small, tmp_path / "a_ncnn_model", subject.size, settings()).path, small, (subject.size,) * 2)


def test_maps_of_the_head_are_decoded_where_they_are_read(detector, tmp_path) -> None:
    path = export(detector, tmp_path / "a_ncnn_model", 64, settings(output="raw")).path
    predictor = open_predictor(path)
    shapes = [output.shape for output in predictor.outputs(torch.rand(2, 3, 64, 64))]
    assert shapes == [(2, 24, 8, 8), (2, 24, 4, 4), (2, 24, 2, 2)]
    same_answers(path, detector, (64, 64))


def test_weights_in_half_take_half_the_place(detector, folder, tmp_path) -> None:
    path = export(detector, tmp_path / "a_ncnn_model", (64, 96), settings(precision="fp16")).path
    weights = [(place / "model.ncnn.bin").stat().st_size for place in (path, folder)]
    assert weights[0] < 0.52 * weights[1]
    assert yaml.safe_load((path / "metadata.yaml").read_text())["precision"] == "fp16"
    images = torch.rand(1, 3, 64, 96)
    exact, half = (answered(open_predictor(place), images)[0] for place in (folder, path))
    difference = (exact - half).abs().max(0).values
    assert 0 < difference[:4].max() < 0.5 and 0 < difference[4:].max() < 1e-2


class Odd(torch.nn.Conv2d):
    """A network with an operator that ncnn has no layer for."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).flatten(2).cumprod(1)


def test_an_operator_that_ncnn_lacks_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"cannot be exported to ncnn, which does not support torch\.cumprod"):
        export(Odd(3, 6, 8, 8), tmp_path / "a_ncnn_model", 64, settings())
    assert list(tmp_path.iterdir()) == []


def test_more_than_one_image_is_refused_and_nothing_is_left(detector, tmp_path) -> None:
    with pytest.raises(UserError, match=r"one image per call. Remove --batch-size"):
        export(detector, tmp_path / "a_ncnn_model", 64, settings(batch_size=2))
    with pytest.raises(UserError, match=r"does not support output detections. Choose decoded or raw"):
        export(detector, tmp_path / "a_ncnn_model", 64, settings(output="detections"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [0.01, 900])
def test_a_converter_that_fails_is_one_sentence(detector, tmp_path, monkeypatch, seconds: float) -> None:
    import pnnx

    monkeypatch.setattr(exporter, "TIME_LIMIT", seconds)
    if seconds > 1:
        monkeypatch.setattr(pnnx, "EXEC_PATH", str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"cannot be exported to ncnn: .*(timed out|missing)") as caught:
        export(detector, tmp_path / "a_ncnn_model", 64, settings())
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_missing_packages_are_one_sentence(detector, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pnnx", None)
    assert EXPORTERS["ncnn"].missing() == "pnnx"
    with pytest.raises(UserError, match=r"package pnnx: pip install 'secateur\[ncnn\]'"):
        export(detector, tmp_path / "a_ncnn_model", 64, settings())
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(UserError, match=r"ncnn is not installed \(pip install 'secateur\[ncnn\]'"):
        open_predictor(folder)


def test_what_is_no_folder_of_ncnn(copy, tmp_path) -> None:
    with pytest.raises(UserError, match="no file"):
        open_predictor(tmp_path / "missing_ncnn_model")
    (copy / "metadata.yaml").unlink()
    with pytest.raises(UserError, match=r"Cannot read metadata\.yaml in"):
        open_predictor(copy)


@pytest.mark.parametrize(
    "text",
    ["", "imgsz: [64]", "[1, 2", "names: &a [*a]", "\x00", "!!python/object/apply:os.getcwd []"],
)
def test_metadata_that_is_broken(copy, text: str) -> None:
    (copy / "metadata.yaml").write_text(text)
    with pytest.raises(UserError, match=r"(Cannot read metadata\.yaml|does not contain the image size)") as caught:
        open_predictor(copy)
    assert "\n" not in str(caught.value)


SPOILT = {
    "no magic": lambda lines: ["1", *lines[1:]],
    "empty": lambda lines: [],
    "a layer less": lambda lines: lines[:-1],
    "more layers told": lambda lines: [lines[0], "9999999 9999999", *lines[2:]],
    "no numbers": lambda lines: [lines[0], "many layers", *lines[2:]],
    "an output more": lambda lines: [line.replace("0 1 in0", "0 9 in0") for line in lines],
    "unknown kind": lambda lines: [*lines[:-1], lines[-1].replace("Concat", "Unheard")],
}


@pytest.mark.parametrize("how", list(SPOILT))
def test_a_description_that_is_broken(copy, how: str) -> None:
    file = copy / "model.ncnn.param"
    file.write_text("\n".join(SPOILT[how](file.read_text().splitlines())))
    words = "ncnn cannot read" if how == "unknown kind" else "is not a network description that ncnn can read"
    with pytest.raises(UserError, match=words) as caught:
        open_predictor(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_weights_that_are_cut_off(copy, share: float) -> None:
    file = copy / "model.ncnn.bin"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="ncnn cannot read"):
        open_predictor(copy)


@pytest.mark.parametrize("change", [("output: decoded", "output: raw"), ("  2: thing 2\n", "")])
def test_outputs_that_do_not_fit_what_is_said_are_refused(copy, change: tuple[str, str]) -> None:
    file = copy / "metadata.yaml"
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(UserError, match="does not match its metadata"):
        open_predictor(copy)


def test_an_opened_model_can_go_before_what_it_gave(folder) -> None:
    # ncnn's blobs belong to their network: reading one after its network is gone would end the process.
    code = f"""
import torch
from secateur.deploy.runtimes import open_predictor
predictor = open_predictor({str(folder)!r})
found = predictor.outputs(torch.rand(2, 3, 64, 96))
del predictor
print(found[0].shape, bool((found[0][..., 4:] <= 1).all()))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("(2, 378, 8) True\n", "")


def test_nothing_is_printed(tmp_path) -> None:
    code = f"""
from secateur.deploy.exporters import export
from secateur.deploy.settings import ExportSettings
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
detector = Detector(Topology.from_yaml("yolov5n", nc=3))
export(detector, {str(tmp_path / "a_ncnn_model")!r}, 64, ExportSettings(format="ncnn"))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_threads_change_nothing(folder) -> None:
    images = torch.rand(1, 3, 64, 96)
    one, two = (open_predictor(folder, threads=threads) for threads in (1, 2))
    assert (one.threads, two.threads) == (1, 2)
    np.testing.assert_allclose(answered(one, images)[0].numpy(), answered(two, images)[0].numpy(), atol=1e-3)
