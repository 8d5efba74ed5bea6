"""Detectors without objectness are predicted with, validated and saved as any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from other_heads import CELL, NAMES, CellFamily, Cells, Queries, QueryFamily, squares
from torch import nn

import secateur
from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.data.index import Index, scan
from secateur.errors import UserError
from secateur.evaluation.nms import Candidates
from secateur.evaluation.predictor import AnswerError, Predictor
from secateur.evaluation.settings import NmsSettings, ValSettings
from secateur.evaluation.validate import validate
from secateur.families.detection.network import DetectionNetwork, check_detector, decides
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.family import FAMILIES, predictor_of
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint

KINDS = {"cells": Cells(), "queries": Queries()}
PLACES = ((0, 1, 1), (1, 1, 3), (2, 5, 2), (0, 6, 6))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    list(FAMILIES)
    for family in (CellFamily(), QueryFamily()):
        monkeypatch.setitem(FAMILIES._methods, family.kind, family)
    yield


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(kind: str) -> Any:
    return KINDS[kind].build(NAMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 64 x 64 pixels, each with three or four squares."""
    root = tmp_path_factory.mktemp("squares")
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for number in range(6):
        places = [(colour, (row + number) % 8, column) for colour, row, column in PLACES][number % 2 :]
        cv2.imwrite(str(root / f"images/{number}.png"), squares(*places))
        lines = [f"{c} {(column + 0.5) / 8} {(row + 0.5) / 8} 0.125 0.125" for c, row, column in places]
        (root / f"labels/{number}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [red, green, blue]\n")
    return root / "data.yaml"


@pytest.fixture(scope="module")
def index(data: Path) -> Index:
    return scan(load_data_config(data), "val", progress=False)


def box(place: tuple[int, int, int]) -> list[float]:
    colour, row, column = place
    return [CELL * column, CELL * row, CELL * (column + 1), CELL * (row + 1), colour]


def test_it_answers_in_two_phases(network: Any) -> None:
    predictor = predictor_of(network)
    assert isinstance(predictor, Predictor) and isinstance(network, DetectionNetwork)
    images = torch.from_numpy(squares(*PLACES)[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    found = predictor.infer(images, 0.001)
    [boxes] = predictor.boxes(found, NmsSettings(conf=0.25))
    assert torch.equal(boxes, predictor.predict(images)[0])
    assert sorted(boxes[:, [0, 1, 2, 3, 5]].tolist()) == sorted(box(place) for place in PLACES)
    assert (boxes[:, 4] > 0.99).all()
    # Candidates of a detector with final boxes are these boxes themselves; the other proposes two a cell.
    [of_image] = found
    assert isinstance(of_image, Candidates) is not decides(network)
    assert len(of_image if decides(network) else of_image.boxes) == (64 if decides(network) else 128)


def test_only_wanted_classes_and_as_many_as_wanted(network: Any) -> None:
    predictor = predictor_of(network)
    images = torch.from_numpy(squares(*PLACES)[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    found = predictor.infer(images, 0.25)
    [red_and_blue] = predictor.boxes(found, NmsSettings(conf=0.25), (0, 2))
    assert sorted(red_and_blue[:, 5].tolist()) == [0, 0, 2]
    assert len(predictor.boxes(found, NmsSettings(conf=0.25, max_det=2))[0]) == 2


@pytest.mark.parametrize("settings", [{}, {"rectangular": False}, {"single_cls": True}])
def test_a_validation_finds_everything(network: Any, index: Index, settings: dict[str, Any]) -> None:
    options = ValSettings(image_size=64, workers=0, batch_size=4, **settings)
    metrics = validate(predictor_of(network), index, options, progress=False)
    assert metrics.images == 6 and metrics.instances == 21
    # Precision over recall is read at 101 points, of which the last is not reached by interpolation.
    assert metrics.mAP50 == pytest.approx(1, abs=6e-3) and metrics.mAP50_95 == pytest.approx(1, abs=6e-3)
    assert pytest.approx(1, abs=0.01) == metrics.P and pytest.approx(1, abs=0.01) == metrics.R
    assert set(metrics.speed_ms) == {"preprocess", "inference", "nms"}


def test_a_detector_that_is_moved_is_measured_as_worse(network: Any, index: Index) -> None:
    with torch.no_grad():
        network.layer.weight[2] = 0  # blind for blue
    settings = ValSettings(image_size=64, workers=0)
    found = validate(predictor_of(network), index, settings, progress=False)
    assert found.mAP50 == pytest.approx(2 / 3, abs=6e-3)


def test_in_python_from_a_file(network: Any, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "detector.safetensors"
    save_checkpoint(Checkpoint.of(network, image_size=64), file)
    loaded = load_checkpoint(file)
    assert loaded.names == NAMES and loaded.strides == (16.0,) and loaded.image_size == 64
    found = secateur.predict(file, squares(*PLACES), device="cpu")
    assert sorted(found.xyxy.tolist()) == sorted(box(place)[:4] for place in PLACES)
    assert sorted(found.data["class_name"]) == ["blue", "green", "red", "red"]
    assert len(secateur.predict(loaded, squares(*PLACES), classes=["red"], device="cpu")) == 2
    assert secateur.evaluate(network, data, workers=0, image_size=64, device="cpu").mAP50 == pytest.approx(1, abs=6e-3)


def test_on_the_command_line(
    network: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(Checkpoint.of(network, image_size=64), "detector.safetensors")
    main(["val", "--weights", "detector.safetensors", "--data", str(data), "--workers", "0", "--no-plots"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["all"])
    assert line.split()[1:3] == ["6", "21"] and min(map(float, line.split()[3:7])) > 0.99
    cv2.imwrite("one.png", squares(*PLACES))
    main(["predict", "one.png", "--weights", "detector.safetensors", "--save-txt", "--no-save"])
    lines = Path("runs/predict/exp/labels/one.txt").read_text().splitlines()
    rows = sorted([float(value) for value in line.split()] for line in lines)
    expected = sorted([c, (column + 0.5) / 8, (row + 0.5) / 8, 0.125, 0.125] for c, row, column in PLACES)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_answers_that_cannot_be_boxes_are_refused(network: Any) -> None:
    with torch.no_grad():
        network.layer.weight[0] = float("nan")
    predictor = predictor_of(network)
    with pytest.raises(AnswerError, match="The network returns values that are not finite; use another checkpoint"):
        predictor.infer(torch.zeros(1, 3, 16, 16), 0.1)


def test_a_layer_may_be_called_boxes() -> None:
    network = Cells().build(NAMES)
    network.boxes = nn.Identity()
    assert not decides(network)
    assert len(predictor_of(network).infer(torch.zeros(1, 3, 16, 16), -1.0)[0].scores) == 8


def test_a_network_that_cannot_answer_is_named() -> None:
    class Half(nn.Conv2d):
        strides, names = (8.0,), NAMES

    with pytest.raises(UserError, match=r"Half cannot .*lacks .*architecture.*nc, .*secateur\.families"):
        check_detector(Half(3, 3, 1))
    with pytest.raises(UserError, match="Half cannot be used as a detector: it lacks"):
        TorchPredictor(Half(3, 3, 1))


def test_a_family_without_boxes_says_so() -> None:
    with pytest.raises(UserError, match="family 'module' do not predict boxes: the family does not implement"):
        predictor_of(nn.Conv2d(3, 3, 1))
