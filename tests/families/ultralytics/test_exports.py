"""Cut networks as files of other runtimes: ours, checked and end to end, and those that the package writes itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics.nn")
pytest.importorskip("onnxruntime")

from ultralytics_subjects import NAMES, SIZE, subject_named

from secateur.cli import main
from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.runtimes import open_predictor
from secateur.evaluation.settings import NmsSettings
from secateur.families.family import predictor_of
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.surgery import cut

FORMATS = [name for name in ("onnx", "torchscript", "openvino") if not EXPORTERS[name].missing()]
SEEN = NmsSettings(conf=0.05, max_det=20)


def pruned(name: str, folder: Path) -> Checkpoint:
    """A cut network, in pruned.safetensors."""
    subject = subject_named(name)
    checkpoint = Checkpoint.of(cut(subject.network, subject.graph, subject.plan(3)), image_size=SIZE)
    save_checkpoint(checkpoint, folder / "pruned.safetensors")
    return checkpoint


def images() -> torch.Tensor:
    return torch.rand((1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(5))


def assert_same_boxes(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Boxes of nearly equal scores may change places."""
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found[:, 4], expected[:, 4], rtol=0, atol=1e-3)
    nearest = torch.cdist(expected[:, :4].clamp(-200, 300), found[:, :4].clamp(-200, 300)).min(1).values
    assert nearest.quantile(0.8) < 0.1


@pytest.mark.parametrize("name", ["yolov8n", "yolov10n", "yolo26n"])
def test_every_format_answers_as_the_network(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = pruned(name, tmp_path)
    main(["export", "--weights", str(tmp_path / "pruned.safetensors"), "--format", ",".join(FORMATS),
          "--project", str(tmp_path), "--name", "out", "--json"])  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert [entry["format"] for entry in said["files"]] == FORMATS
    [expected] = predictor_of(checkpoint).predict(images(), SEEN)
    for entry in said["files"]:
        assert entry["max_error"] < 1e-3
        predictor = open_predictor(tmp_path / "out" / entry["file"])
        assert predictor.names == NAMES and predictor.decoder.final == (name != "yolov8n")
        assert_same_boxes(predictor.predict(images(), SEEN)[0], expected)


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo26n-pose", "yolov8n-obb", "yolov8n-cls"])
def test_other_tasks_are_exported(name: str, tmp_path: Path) -> None:
    pruned(name, tmp_path)
    main(["export", "--weights", str(tmp_path / "pruned.safetensors"), "--format", "onnx",
          "--project", str(tmp_path), "--name", "out"])  # fmt: skip
    said = json.loads((tmp_path / "out/summary.json").read_text())
    assert said["export"]["max_error"] < 1e-3


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_what_the_package_exports_of_a_cut_network_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    monkeypatch.chdir(tmp_path)
    checkpoint = pruned(name, tmp_path)
    main(["export", "--weights", "pruned.safetensors", "--format", "ultralytics", "--project", "out", "--name", "x"])
    options: dict[str, Any] = {"nms": False} if name == "yolo26n" else {}
    [expected] = predictor_of(checkpoint).predict(images(), SEEN)
    for kind in FORMATS:
        file = YOLO("out/x/pruned.pt").export(format=kind, imgsz=SIZE, device="cpu", verbose=False, **options)
        predictor = open_predictor(file)
        assert predictor.names == NAMES and predictor.decoder.final == (name == "yolo26n")
        assert_same_boxes(predictor.predict(images(), SEEN)[0], expected)


def test_commands_run_an_exported_file(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pruned("yolo26n", tmp_path)
    main(["export", "--weights", "pruned.safetensors", "--project", "out", "--name", "x"])
    file = "out/x/pruned.onnx"
    main(["val", "--weights", file, "--data", str(tiny_data)])
    main(["predict", "--weights", file, str(tiny_data.parent / "images/val"), "--conf", "0.05"])
    main(["bench", "pruned.safetensors", file, "--rounds", "2"])
    said = capsys.readouterr().out
    assert "mAP50-95" in said and "8 images" in said and "pruned.onnx" in said
