"""What an exported file answers is looked at: no box, line of JSON or metric is made of what cannot be boxes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from foreign_files import SIZE, Sick, onnx_file

from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.data.index import scan
from secateur.deploy import check
from secateur.deploy.exporters import export
from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.latency import predictor_call
from secateur.evaluation.predictor import AnswerError
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.yolov5.model import Detector
from secateur.prediction.predicting import BoxFinder

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FAULTS = {
    "NaN box": "values that are not finite",
    "all NaN": "values that are not finite",
    "infinite box": "values that are not finite",
    "negative width": "a box of negative width or height",
    "score": r"scores outside 0\.\.1",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a dark image, then a bright one."""
    folder = tmp_path_factory.mktemp("set")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for name, grey in (("dark", 10), ("bright", 250)):
        cv2.imwrite(str(folder / f"images/{name}.png"), np.full((*SIZE, 3), grey, np.uint8))
        (folder / f"labels/{name}.txt").write_text("0 .5 .5 .5 .5\n")
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [class0, class1]\n")
    return folder


@pytest.fixture
def sick(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return onnx_file(Sick(request.param), tmp_path / "sick.onnx", size=SIZE)


EACH = pytest.mark.parametrize(("sick", "fault"), FAULTS.items(), indirect=["sick"])


@EACH
def test_a_predictor_says_which_image(sick: Path, fault: str) -> None:
    predictor = open_predictor(sick)
    dark, bright = torch.zeros(1, 3, *SIZE), torch.ones(1, 3, *SIZE)
    assert len(predictor.infer(dark, 0.5)[0].boxes) > 3
    with pytest.raises(AnswerError, match=f"sick.onnx returns {fault}; export it again") as caught:
        predictor.infer(torch.cat((dark, dark, bright)), 0.5)
    assert caught.value.image == 2


@EACH
def test_predict_names_the_file_and_the_image(
    sick: Path, fault: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sick.parent)
    words = ["predict", "--weights", str(sick), "--nosave", "--save-json", "--batch-size", "1", "--device", "cpu"]
    main([*words, str(pictures / "images/dark.png")])
    for line in Path("runs/predict/exp/predictions.jsonl").read_text().splitlines():
        assert all(x1 <= x2 and y1 <= y2 for x1, y1, x2, y2 in (row["box"] for row in json.loads(line)["detections"]))
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*words, str(pictures / "images")])
    told = capsys.readouterr().err
    assert caught.value.code == 2 and f"{sick} returns {fault.replace(chr(92), '')} for " in told
    assert f"{pictures / 'images/bright.png'}; export it again" in told
    written = "".join(file.read_text() for file in Path("runs").rglob("*.json*"))
    assert "Infinity" not in written and "NaN" not in written


@EACH
def test_a_validation_names_the_file_and_the_image(sick: Path, fault: str, pictures: Path) -> None:
    index = scan(load_data_config(pictures / "data.yaml"), "val", progress=False)
    with pytest.raises(UserError, match=f"sick.onnx returns {fault} for .*bright.png; export it again"):
        validate(open_predictor(sick), index, ValSettings(workers=0, batch_size=2), progress=False)


@EACH
def test_arrays_are_named_by_their_number(sick: Path, fault: str) -> None:
    finder = BoxFinder(open_predictor(sick), SIZE, batch_size=4)
    dark, bright = (np.full((*SIZE, 3), grey, np.uint8) for grey in (0, 255))
    assert len(finder.boxes([dark])) == 1
    with pytest.raises(UserError, match=f"sick.onnx returns {fault} for image 2; "):
        finder.boxes([dark, bright, dark])


@pytest.mark.parametrize("sick", ["all NaN"], indirect=True)
def test_a_latency_is_not_that_of_nonsense(sick: Path) -> None:
    with pytest.raises(UserError, match=r"sick\.onnx returns values that are not finite; export it again"):
        predictor_call(open_predictor(sick), torch.ones(1, 3, *SIZE))()


@pytest.mark.parametrize(("output", "value"), [("raw", math.nan), ("raw", -math.inf), ("detections", math.nan)])
def test_files_of_our_own_are_looked_at_too(
    output: str, value: float, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = open_predictor(export(detector, tmp_path / "a.onnx", 64, ExportSettings(output=output)).path)
    answer = FilePredictor.outputs

    def spoilt(self: FilePredictor, images: torch.Tensor) -> list[Any]:
        found = answer(self, images)
        found[-1][1].flat[3] = value
        return found

    monkeypatch.setattr(FilePredictor, "outputs", spoilt)
    with pytest.raises(AnswerError, match="values that are not finite") as caught:
        predictor.infer(torch.rand(3, 3, 64, 64), 0.1)
    assert caught.value.image == 1


@pytest.mark.parametrize("number", [-1.0, 3.0])
def test_a_class_that_no_name_is_for(
    number: float, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = open_predictor(export(detector, tmp_path / "a.onnx", 64, ExportSettings(output="detections")).path)
    boxes = np.array([[[1, 2, 3, 4, 0.9, number]]], np.float32)
    monkeypatch.setattr(FilePredictor, "outputs", lambda *_: [boxes])
    with pytest.raises(AnswerError, match=r"a\.onnx returns a class id without a name"):
        predictor.infer(torch.zeros(1, 3, 64, 64), 0.1)


def test_an_export_that_answers_nonsense_is_not_kept(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> float:
        raise AnswerError("/tmp/x", "values that are not finite", 0, "export it again")

    monkeypatch.setattr(check, "output_error", fails)
    with pytest.raises(UserError, match=r"a\.onnx was not written: in .* differs from the network by inf"):
        export(detector, tmp_path / "a.onnx", 64)
    assert list(tmp_path.iterdir()) == []
