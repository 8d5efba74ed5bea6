"""`secateur compare`: files and records, what it prints and writes, what it refuses, and that it resumes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from commands_run import sentence
from killing import Killed
from secateur.cli import main
from secateur.evaluation.record import DetectionRecord
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.runs.compare.subject import Subject

pytestmark = pytest.mark.usefixtures("own_folder")


def lively(tiny_weights: Path, file: Path, seed: int) -> Path:
    """A detector that is sure of boxes about as large as the objects, everywhere."""
    checkpoint = load_checkpoint(tiny_weights)
    detector = checkpoint.build()
    assert isinstance(detector, Detector)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for last in detector.head.m:
            last.bias += torch.randn(last.bias.shape, generator=generator) + 6
    save_checkpoint(Checkpoint.of(detector, like=checkpoint), file)
    return file


@pytest.fixture
def pair(tiny_weights: Path, tmp_path: Path) -> tuple[Path, Path]:
    return tuple(lively(tiny_weights, tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate("ab"))  # type: ignore[return-value]


def compare(*words: object, data: Path | None = None) -> dict[str, Any]:
    """The summary of a comparison without times."""
    more = ["--data", str(data), "--img", "64", "--workers", "0", "--device", "cpu"] if data else []
    main(["compare", *map(str, words), *more, "--no-times", "--resamples", "50"])
    folder = max(Path("runs/compare").iterdir(), key=lambda place: (place / "summary.json").stat().st_mtime_ns)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_a_network_against_itself_is_nought(
    pair: tuple[Path, Path], tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = compare(pair[0], pair[0], data=tiny_data)
    first, second = summary["table"]
    assert first["difference"] is None and second["name"] == "a.safetensors (2)"
    for figure in ("mAP50", "mAP50-95"):
        found = second["difference"][figure]
        assert [found[key] for key in ("change", "low", "high", "above")] == [0, 0, 0, 0]
        assert found["verdict"] == "within noise"
    assert summary["disagreements"] == {second["name"]: []}
    out = capsys.readouterr().out
    assert "within noise" in out and "agree on every image" in out


def test_two_networks(pair: tuple[Path, Path], tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = compare(*pair, "--conf", "0.05", "--draw", "2", "--verbose", data=tiny_data)
    out, folder = capsys.readouterr().out, Path(summary["folder"])
    main(["val", "--weights", str(pair[1]), "--data", str(tiny_data), "--img", "64", "--workers", "0", "--json"])
    alone = json.loads(capsys.readouterr().out)
    row = summary["table"][1]
    assert row["metrics"] == alone["metrics"] and row["ap_by_size"] == alone["ap_by_size"]
    assert row["model"] == alone["model"] and row["image_size"] == 64
    change = row["metrics"]["mAP50"] - summary["table"][0]["metrics"]["mAP50"]
    assert row["difference"]["mAP50"]["change"] == pytest.approx(change, abs=1e-12)
    assert summary["images"] == 8 and "mAP50-95 per class" in out and "triangle" in out
    listed = summary["disagreements"]["b.safetensors"]
    assert listed and [entry["count"] for entry in listed] == sorted((entry["count"] for entry in listed), reverse=True)
    drawn = sorted((folder / "disagreements/2").iterdir())
    assert len(drawn) == 2 and cv2.imread(str(drawn[0])).shape[1] == 3 * 64
    assert Path(listed[0]["file"]).is_file()
    # The records of a comparison are compared again without the networks.
    records = [folder / "evaluation" / name / "detections.npz" for name in ("1-a", "2-b")]
    again = compare(*records)
    assert [entry["name"] for entry in again["table"]] == ["1-a/detections.npz", "2-b/detections.npz"]
    assert [entry["metrics"] for entry in again["table"]] == [entry["metrics"] for entry in summary["table"]]
    assert again["table"][1]["difference"] == row["difference"]


def test_a_killed_comparison_continues(
    pair: tuple[Path, Path], tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[str] = []
    real = Subject.evaluate

    def evaluate(self: Subject, *args: Any, **more: Any) -> Any:
        if len(evaluated) == 1:
            evaluated.append("killed")
            raise Killed
        evaluated.append(Path(self.weights).name)
        return real(self, *args, **more)

    monkeypatch.setattr(Subject, "evaluate", evaluate)
    with pytest.raises(Killed):
        compare(*pair, data=tiny_data)
    summary = compare(*pair, data=tiny_data)
    assert evaluated == ["a.safetensors", "killed", "b.safetensors"]
    assert summary["folder"] == "runs/compare/exp" and len(list(Path("runs/compare").iterdir())) == 1


def test_files_of_different_runtimes_are_timed_in_turns(pair: tuple[Path, Path], tiny_data: Path) -> None:
    pytest.importorskip("onnxruntime")
    main(["export", "--weights", str(pair[0]), "--format", "onnx", "--img", "64"])
    (file,) = Path.cwd().rglob("*.onnx")
    words = [str(pair[0]), str(file), "--runtime", "torch", "--rounds", "2", "--threads", "1"]
    main(["compare", *words, "--data", str(tiny_data), "--img", "64", "--workers", "0", "--resamples", "20"])
    first, second = json.loads(Path("runs/compare/exp/summary.json").read_text())["table"]
    assert first["runtime"] == "PyTorch" and second["runtime"] == "ONNX Runtime"
    assert first["latency_ms"] > 0 and second["latency_ms"] > 0 and first["speed"] == 1
    assert second["model"]["gflops"] == pytest.approx(first["model"]["gflops"], rel=0.05)
    assert second["metrics"]["mAP50"] == pytest.approx(first["metrics"]["mAP50"], abs=0.02)


def test_a_run_stands_for_the_network_that_it_ends_with(pair: tuple[Path, Path], tiny_data: Path) -> None:
    more = ["--statistics-images", "8", "--correction-images", "8", "--round-to", "1", "--criterion", "l2"]
    common = ["--data", str(tiny_data), "--img", "64", "--workers", "0"]
    main(["prune", "--weights", str(pair[0]), *common, "--flops", "0.8", *more, "--no-cliff"])
    run = Path("runs/prune/exp")
    table = json.loads((run / "summary.json").read_text())["table"]
    summary = compare(run / "evaluation/dense", run)
    assert [row["metrics"] for row in summary["table"]] == [table[0]["metrics"], table[-1]["metrics"]]
    assert summary["table"][1]["model"] == table[-1]["model"]


def test_what_cannot_be_compared_is_one_sentence(
    pair: tuple[Path, Path], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = compare(pair[0], pair[0], data=tiny_data)
    file = tmp_path / "exp" / "detections.npz"
    shutil.copytree(Path(kept["folder"]) / "evaluation/1-a", file.parent)
    shutil.rmtree("runs")
    record = DetectionRecord.load(file)
    dataclasses.replace(record, names={0: "disc", 1: "square", 2: "cone"}).save(tmp_path / "cone.npz")
    dataclasses.replace(record, files=("other.png", *record.files[1:])).save(tmp_path / "other.npz")
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([file], "A comparison needs at least two networks"),
        ([pair[0], pair[1]], "Option --data is missing"),
        ([file, tmp_path / "cone.npz"], "networks with the same classes in the same order"),
        ([file, tmp_path / "other.npz"], "with different images or labels"),
        ([file, tmp_path / "missing.npz"], "does not exist"),
        ([file, tmp_path / "empty"], "has no detections of the split val"),
        ([file, tmp_path / "exp", "--task", "test"], "has no detections of the split test"),
    ):
        assert said in sentence(capsys, "compare", *map(str, words))
