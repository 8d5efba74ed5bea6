"""ExecuTorch folders: the same outputs, a program and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from export_formats import same_answers
from law_subjects import subject_named
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.runtimes import open_predictor, runtime_of
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.pruning.surgery import cut

pytest.importorskip("executorch.exir")


def settings(**changes) -> ExportSettings:
    return ExportSettings(format="executorch", **changes)


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory) -> Path:
    """For images of 64 x 96 pixels."""
    path = tmp_path_factory.mktemp("executorch") / "a_executorch_model"
    return export(detector, path, (64, 96), settings(), about={"license": "MIT"}).path


def test_outputs_and_what_is_said_of_them(detector, folder) -> None:
    assert sorted(file.name for file in folder.iterdir()) == ["metadata.yaml", "model.pte"]
    said = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert (said["imgsz"], said["output"], said["license"]) == ([64, 96], "decoded", "MIT")
    predictor = open_predictor(folder)
    assert predictor.names == detector.names and predictor.strides == (8.0, 16.0, 32.0)
    assert predictor.image_size == (64, 96) and runtime_of(folder).title == "ExecuTorch"
    same_answers(folder, detector, (64, 96))


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov5n6"])
def test_other_topologies(lively, name, tmp_path) -> None:
    detector = lively(name)
    same_answers(export(detector, tmp_path / "a_executorch_model", 128, settings()).path, detector, (128, 128))


def test_a_cut_network_for_two_images(tmp_path) -> None:
    subject = subject_named("yolov5n")
    small = cut(subject.detector, subject.graph, subject.random_plan(6))
    path = export(small, tmp_path / "a_executorch_model", subject.size, settings(batch_size=2)).path
    same_answers(path, small, (subject.size,) * 2)


def test_maps_of_the_head_are_decoded_where_they_are_read(detector, tmp_path) -> None:
    path = export(detector, tmp_path / "a_executorch_model", 64, settings(output="raw")).path
    shapes = [output.shape for output in open_predictor(path).outputs(torch.rand(2, 3, 64, 64))]
    assert shapes == [(2, 24, 8, 8), (2, 24, 4, 4), (2, 24, 2, 2)]
    same_answers(path, detector, (64, 64))


def test_a_converter_that_fails_is_one_sentence(detector, tmp_path, monkeypatch) -> None:
    import executorch.exir

    def lower(*arguments: object, **options: object) -> None:
        raise RuntimeError("no\nway")

    monkeypatch.setattr(executorch.exir, "to_edge_transform_and_lower", lower)
    with pytest.raises(UserError, match=r"cannot be exported to ExecuTorch: no way\.$"):
        export(detector, tmp_path / "a_executorch_model", 64, settings())
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_one_sentence(detector, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    assert EXPORTERS["executorch"].missing() == "executorch.exir"
    with pytest.raises(UserError, match=r"package executorch.exir: pip install 'secateur\[executorch\]'"):
        export(detector, tmp_path / "a_executorch_model", 64, settings())
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(UserError, match=r"executorch is not installed \(pip install 'secateur\[executorch\]'"):
        open_predictor(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_programs_that_are_broken(folder, tmp_path, share: float) -> None:
    content = (folder / "model.pte").read_bytes()
    (tmp_path / "metadata.yaml").write_bytes((folder / "metadata.yaml").read_bytes())
    broken = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}_executorch_model"))
    (broken / "model.pte").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="ExecuTorch cannot run") as caught:
        open_predictor(broken)
    assert "\n" not in str(caught.value)


def test_a_folder_without_its_files(folder, tmp_path) -> None:
    with pytest.raises(UserError, match="no file"):
        open_predictor(tmp_path / "missing_executorch_model")
    empty = tmp_path / "b_executorch_model"
    empty.mkdir()
    with pytest.raises(UserError, match="ExecuTorch cannot run"):
        open_predictor(empty)
    (empty / "model.pte").write_bytes((folder / "model.pte").read_bytes())
    with pytest.raises(UserError, match=r"no metadata\.yaml"):
        open_predictor(empty)


def test_nothing_is_printed(folder) -> None:
    code = f"""
import torch
from secateur.deploy.runtimes import open_predictor
open_predictor({str(folder)!r}, threads=2).infer(torch.rand(1, 3, 64, 96), 0.1)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
