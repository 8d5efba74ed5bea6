"""Detectors that Ultralytics exported are read as what they are, without its package; others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import (
    SIZE,
    ULTRALYTICS,
    Answers,
    Pooled,
    boxes,
    columns,
    names,
    onnx_file,
    openvino_file,
    torchscript_file,
)

from export_formats import answered
from secateur.cli import main
from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.runtimes import open_predictor
from secateur.errors import UserError
from secateur.evaluation.settings import NmsSettings
from secateur.families.outputs import Answer
from secateur.families.ultralytics.exported import recognises

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WRITERS: dict[str, Any] = {
    "onnx": (onnx_file, "x.onnx"),
    "torchscript": (torchscript_file, "x.torchscript"),
    "openvino": (openvino_file, "x_openvino_model"),
}
SAYS = {**ULTRALYTICS, "task": "detect", "names": names(3), "imgsz": list(SIZE)}


class InPixels(Pooled):
    """The same with boxes in pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = super().forward(images)
        return torch.cat((found[:, :4] * 64, found[:, 4:]), 1)


def written(kind: str, answer: torch.Tensor, metadata: dict[str, Any], folder: Path) -> Path:
    if missing := EXPORTERS[kind].missing():
        pytest.skip(f"{missing} is not installed")
    write, file = WRITERS[kind]
    path: Path = write(Answers(answer), folder / file, metadata)
    return path


@pytest.mark.parametrize("kind", WRITERS)
def test_columns_are_a_detector(kind: str, tmp_path: Path) -> None:
    given = columns(3)
    predictor = open_predictor(written(kind, given, SAYS, tmp_path))
    assert (predictor.nc, dict(predictor.names), predictor.strides) == (3, names(3), (8.0, 16.0, 32.0))
    found = answered(predictor, torch.rand(1, 3, *SIZE))
    centres, half = given[:, :2], given[:, 2:4] / 2
    corners = torch.cat((centres - half, centres + half), 1)[0].T
    [candidates] = predictor.infer(torch.rand(1, 3, *SIZE), -1.0)
    torch.testing.assert_close(candidates.boxes, corners, rtol=0, atol=1e-3)
    torch.testing.assert_close(found, given.transpose(1, 2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("strides", [(16, 32), (4, 8, 16, 32), (8, 16, 32, 64)])
def test_levels_are_read_from_the_number_of_columns(strides: tuple[int, ...], tmp_path: Path) -> None:
    given = columns(3, (128, 192), strides)
    file = onnx_file(Answers(given), tmp_path / "x.onnx", {**SAYS, "imgsz": [128, 192]}, size=(128, 192))
    assert open_predictor(file).strides == tuple(map(float, strides))


def final(nc: int, count: int = 300) -> torch.Tensor:
    """Final boxes, some of them padding."""
    found = boxes(count, 6)
    found[..., 5] = torch.arange(count) % nc
    found[:, count // 2 :] = 0
    return found


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("says", [{"end2end": True}, {"args": {"nms": True}}, {}], ids=["end2end", "nms", "silent"])
def test_final_boxes_are_not_suppressed_again(kind: str, says: dict[str, Any], tmp_path: Path) -> None:
    given = final(3)
    predictor = open_predictor(written(kind, given, {**SAYS, **says}, tmp_path))
    assert predictor.nc == 3 and predictor.strides == (32.0,)
    [found] = predictor.predict(torch.rand(1, 3, *SIZE), NmsSettings(conf=0.001))
    sure = given[0][given[0, :, 4] > 0.001]
    torch.testing.assert_close(found, sure[sure[:, 4].argsort(descending=True)], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "says", "words"),
    [
        (
            columns(80),
            {},
            "without class names in the file, cannot be distinguished from boxes with angles or key points",
        ),
        (columns(15, extra=1), {**SAYS, "names": names(15)}, "but with 20 values, while 15 classes need 19"),
        (columns(3, extra=1), {**SAYS, "task": "obb"}, "and states the task obb"),
        (columns(3) / 200, SAYS, "but with boxes that are not in pixels"),
        (columns(3) * 2, SAYS, r"but with scores outside 0\.\.1"),
        (final(3), {}, "probably boxes after non-maximum suppression"),
        (final(3), {**SAYS, "names": names(2)}, "probably boxes after non-maximum suppression"),
        (final(3), {**SAYS, "task": "pose", "end2end": True}, "and states the task pose"),
        (boxes(300, 38), {**SAYS, "task": "segment", "end2end": True}, "and states the task segment"),
        (torch.rand(1, 1000), {**SAYS, "task": "classify"}, "and states the task classify"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else "",
)
def test_what_cannot_be_told_is_refused(given: torch.Tensor, says: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = written("onnx", given, says, tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        open_predictor(file)
    assert str(caught.value).startswith(f"Cannot read {file}") and "detectors exported by Ultralytics" in str(
        caught.value
    )


def test_numbers_of_other_layouts_do_not_fit() -> None:
    """Columns of any number of classes are read only where as many are stated."""
    for nc in range(1, 92):
        given = columns(nc).numpy()
        assert not isinstance(recognises(Answer(nc, 1, SIZE, [given])), str)
        for stated in (0, nc - 1, nc + 1, 1000):
            assert stated == nc or isinstance(recognises(Answer(stated, 1, SIZE, [given])), str)
        turned = np.ascontiguousarray(given.transpose(0, 2, 1))
        assert isinstance(recognises(Answer(nc, 1, SIZE, [turned])), str)


@pytest.mark.parametrize("command", ["val", "predict", "bench"])
def test_every_command_runs_such_a_file(
    command: str, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {**SAYS, "names": {0: "disc", 1: "square", 2: "triangle"}, "imgsz": [64, 64]}
    file = onnx_file(InPixels(3), tmp_path / "yolov8n.onnx", known, size=(64, 64))
    words = {
        "val": ["--weights", str(file), "--data", str(tiny_data)],
        "predict": ["--weights", str(file), str(tiny_data.parent / "images" / "val"), "--conf", "0.01"],
        "bench": [str(file), "--rounds", "2"],
    }
    main([command, *words[command]])
    said = capsys.readouterr().out
    assert {"val": "mAP50", "predict": "images", "bench": "yolov8n.onnx"}[command] in said
