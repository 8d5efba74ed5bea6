"""Detectors of one channel (`ch: 1`) through whole commands, and of other numbers of channels as far as they go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from commands_run import sentence
from law_subjects import enliven
from secateur.api.using import predict
from secateur.checkpoints import heal as healing
from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.data.index import scan
from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import open_predictor
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.report.figures import plots_available
from tiny_network import TINY

pytestmark = pytest.mark.usefixtures("own_folder")
NAMES = {0: "disc", 1: "square", 2: "triangle"}
SHORT = ("--img", "64", "--json")


def cfg_of(channels: int, folder: Path) -> Path:
    file = folder / f"{channels}.yaml"
    file.write_text(yaml.safe_dump({**TINY, "ch": channels}))
    return file


def detector_of(channels: int, folder: Path) -> Path:
    """A lively detector that sees something everywhere."""
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(cfg_of(channels, folder), nc=3), NAMES)
    enliven(detector)
    with torch.no_grad():
        for last in detector.head.m:
            last.bias.view(detector.na, -1)[:, 4] += 3  # type: ignore[union-attr, operator]
    save_checkpoint(Checkpoint.of(detector), folder / f"{channels}.safetensors")
    return folder / f"{channels}.safetensors"


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return detector_of(1, tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    """The summary of a command."""
    capsys.readouterr()
    main([*map(str, words), *SHORT])
    return json.loads(capsys.readouterr().out)


def test_train_val_predict_prune_heal_finetune(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "PIECE", 2)
    monkeypatch.setattr("secateur.report.run_folder_plots.plots_available", plots_available)
    images = tiny_data.parent / "images"
    data = ("--data", tiny_data, "--workers", "0")
    run(capsys, "train", "--cfg", cfg_of(1, tmp_path), *data, "--epochs", "1", "--batch-size", "8")
    trained = Path("runs/train/exp/weights/best.safetensors")
    checkpoint = load_checkpoint(trained)
    assert checkpoint.architecture.channels == 1
    assert checkpoint.tensors["model.0.conv.weight"].shape[1] == 1
    batch = cv2.imread("runs/train/exp/train_batch.png")
    assert batch is not None and (np.ptp(batch, axis=2) == 0).mean() > 0.3, "images are drawn in a scale of colours"
    assert Path("runs/train/exp/labels.png").is_file() and Path("runs/train/exp/results.png").is_file()
    table = run(capsys, "val", "--weights", trained, *data)["metrics"]
    assert 0 <= table["mAP50"] <= 1
    found = run(capsys, "predict", "--weights", trained, images / "val", "--conf", "0.001")
    assert found["pictures"] == 8 and not found["unreadable"] and sum(found["boxes"].values()) > 0
    few = ("--statistics-images", "8", "--correction-images", "8", "--rounds", "2", "--round-to", "1", "--no-cliff")
    run(capsys, "prune", "--weights", trained, *data, "--flops", "0.8", *few)
    cut = Path("runs/prune/exp/pruned.safetensors")
    small = load_checkpoint(cut)
    assert small.architecture.channels == 1 and small.plan is not None
    assert small.plan["after"]["flops"] <= 0.8 * small.plan["before"]["flops"]
    heal = ("--teacher", trained, "--images", images / "train", "--heal-steps", "4", "--heal-batch", "8")
    run(capsys, "heal", "--weights", cut, *heal, "--workers", "0")
    healed = load_checkpoint("runs/heal/exp/healed.safetensors")
    assert [stage.verb for stage in healed.history] == ["train", "prune", "heal"]
    teacher = ("--distill", "bce", "--teacher", trained, "--epochs", "1", "--batch-size", "8")
    run(capsys, "finetune", "--weights", "runs/heal/exp/healed.safetensors", *data, *teacher)
    assert load_checkpoint("runs/finetune/exp/weights/best.safetensors").architecture.channels == 1


@pytest.mark.parametrize(
    "words",
    [
        "--layers 1 --layer-score contribution --layer-images 8",
        "--layers 1 --layer-score taylor --layer-images 8 --norms reestimate",
        "--flops 0.8 --criterion l2 --search eagleeye --candidates 2 --round-to 1",
    ],
)
def test_other_ways_of_pruning(grey: Path, words: str, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", tiny_data, "--workers", "0", "--correction-images", "8")
    run(capsys, "prune", "--weights", grey, *data, *words.split())
    assert load_checkpoint("runs/prune/exp/pruned.safetensors").architecture.channels == 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_exported_files_answer_to_grey_images(
    grey: Path, precision: str, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    calibration = ("--data", tiny_data, "--no-measure") if precision == "int8" else ()
    run(capsys, "export", "--weights", grey, "--format", "onnx", "--precision", precision, *calibration)
    file = Path("runs/export/exp/1.onnx")
    predictor = open_predictor(file)
    assert isinstance(predictor, FilePredictor) and predictor.channels == 1
    assert predictor.metadata.channels == 1
    measured = run(capsys, "val", "--weights", file, "--data", tiny_data, "--workers", "0")["metrics"]
    found = run(capsys, "predict", tiny_data.parent / "images/val", "--weights", file, "--conf", "0.3")
    assert found["pictures"] == 8 and found["boxes"]
    if precision == "fp32":
        index = scan(load_data_config(tiny_data), "val", progress=False)
        settings = ValSettings(image_size=64, workers=0, rectangular=False)  # the file takes squares alone
        expected = validate(TorchPredictor(load_checkpoint(grey).build()), index, settings, progress=False)
        assert measured == pytest.approx(expected.to_dict(), abs=1e-6)
    rows = run(capsys, "bench", grey, file, "--rounds", "1", "--threads", "1")["table"]
    assert len(rows) == 2


def test_a_recipe_with_a_grey_detector(
    grey: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    recipe = tmp_path / "short.yaml"
    stages = [
        {"train": {"epochs": 1}},
        {"prune": {"flops": "0.8", "criterion": "l2", "round_to": 1, "correction_images": 8, "cliff": False}},
        {"export": {"format": "onnx", "precision": "int8", "calibration": 4}},
    ]
    recipe.write_text(yaml.safe_dump({"name": "short", "summary": "all of it", "stages": stages}))
    words = ("--weights", grey, "--data", tiny_data, "--workers", "0", "--batch-size", "8")
    summary = run(capsys, "run", "--recipe", recipe, *words)
    assert Path(summary["folder"], "final.onnx").is_file()


def test_colour_and_grey_copies_of_an_image_have_the_same_boxes(grey: Path, tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("supervision")
    file = sorted((tiny_data.parent / "images" / "val").iterdir())[0]
    pixels = cv2.imread(str(file))
    assert pixels is not None
    cv2.imwrite(str(tmp_path / "grey.png"), cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
    found = [predict(grey, shown, image_size=64, conf=0.3) for shown in (file, pixels, tmp_path / "grey.png")]
    assert len(found[0]) > 0
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].xyxy, other.xyxy)
        np.testing.assert_array_equal(found[0].confidence, other.confidence)


REFUSED = (
    "error: The network takes images of 4 channels, but Secateur reads only images of 1 (grey) or 3 (colour). Use "
    "a network with 'ch: 1' or 'ch: 3' in its model YAML."
)


@pytest.mark.parametrize(
    "words",
    [
        "train --cfg CFG --data DATA --epochs 1 --workers 0",
        "finetune --weights WEIGHTS --data DATA --epochs 1 --workers 0",
        "val --weights WEIGHTS --data DATA --workers 0",
        "predict IMAGES --weights WEIGHTS",
        "prune --weights WEIGHTS --data DATA --flops 0.5",
        "prune --weights WEIGHTS --images IMAGES --flops 0.5",
        "heal --weights WEIGHTS --teacher WEIGHTS --images IMAGES",
        "run --weights WEIGHTS --data DATA",
        "sweep --weights WEIGHTS --data DATA",
        "export --weights WEIGHTS --precision int8 --data DATA",
    ],
)
def test_four_channels_are_refused_before_anything_is_written(
    words: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {
        "CFG": cfg_of(4, tmp_path),
        "WEIGHTS": detector_of(4, tmp_path),
        "DATA": tiny_data,
        "IMAGES": tiny_data.parent / "images" / "train",
    }
    line = sentence(capsys, *(str(places.get(word, word)) for word in words.split()), "--img", "64")
    assert line == REFUSED
    assert not list(Path("runs").rglob("*"))


def test_four_channels_go_wherever_no_image_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    weights = detector_of(4, tmp_path)
    run(capsys, "prune", "--weights", weights, "--flops", "0.8", "--criterion", "l2", "--round-to", "1")
    run(capsys, "export", "--weights", "runs/prune/exp/pruned.safetensors", "--format", "onnx")
    rows = run(capsys, "bench", weights, "runs/export/exp/pruned.onnx", "--rounds", "1", "--threads", "1")["table"]
    assert len(rows) == 2
