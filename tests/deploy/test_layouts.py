"""Files of other makers: which are read as YOLOv5's, which are refused, and what the sentence says."""

from __future__ import annotations

from collections.abc import Callable
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
    cells,
    names,
    onnx_file,
    openvino_file,
    rows,
    torchscript_file,
)
from torch import Tensor, nn

from export_formats import answered, expected_of
from secateur.cli import main
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import OUTPUTS, ExportSettings
from secateur.errors import UserError
from secateur.families.outputs import Answer
from secateur.families.yolov5.deploy.recognition import recognises
from secateur.families.yolov5.model import Detector

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WRITERS: dict[str, tuple[Callable[..., Path], str]] = {
    "onnx": (onnx_file, "x.onnx"),
    "torchscript": (torchscript_file, "x.torchscript"),
    "openvino": (openvino_file, "x_openvino_model"),
}
MASKS = torch.rand(1, 32, SIZE[0] // 4, SIZE[1] // 4)
STOCK = {"stride": 32, "names": names(3)}
SUPPRESSED = {**ULTRALYTICS, "task": "detect", "names": names(1), "args": {"nms": True}}

READ: dict[str, tuple[nn.Module, dict[str, Any], tuple[int, ...]]] = {
    "rows": (Answers(rows(3)), STOCK, (8, 16, 32)),
    "rows without metadata": (Answers(rows(3)), {}, (8, 16, 32)),
    "one class": (Answers(rows(1)), {"names": names(1)}, (8, 16, 32)),
    "80 classes": (Answers(rows(80)), {}, (8, 16, 32)),
    "two levels": (Answers(rows(3, strides=(16, 32))), STOCK, (16, 32)),
    "a level more": (Answers(rows(3, strides=(4, 8, 16, 32))), {}, (4, 8, 16, 32)),
    "six anchors": (Answers(rows(3, anchors=6)), STOCK, (8, 16, 32)),
    "largest objects first": (Answers(rows(3, strides=(32, 16, 8))), STOCK, (32, 16, 8)),
    "maps behind the rows": (
        Answers(rows(3), *(torch.zeros(1, 3, 64 // s, 96 // s, 8) for s in (8, 16, 32))), STOCK, (8, 16, 32)
    ),
}  # fmt: skip

NOT_READ: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "YOLOv8": (Answers(torch.rand(1, 4 + 80, cells())), {}, r"1 x 84 x 126, the layout of YOLOv8 and later: a"),
    "YOLOv8 in shares": (
        Answers(torch.rand(1, 7, cells())),
        {**ULTRALYTICS, "task": "detect", "names": names(3), "imgsz": list(SIZE)},
        r"Cannot read \S+ \(Ultralytics YOLOv8n model\): it maps 1 x 3 x 64 x 96 to 1 x 7 x 126, the",
    ),
    "YOLOv8-seg": (Answers(torch.rand(1, 39, cells()), MASKS), {}, "rows and masks, as in segmentation networks"),
    "YOLOv8-pose": (
        Answers(torch.rand(1, 56, cells())), {**ULTRALYTICS, "task": "pose"}, "states the task pose. Secateur"
    ),
    "YOLOv5-seg": (Answers(rows(1, extra=32), MASKS), {"names": names(1)}, "rows and masks, as in segmentation"),
    "YOLOv5-seg, rows alone": (Answers(rows(1, extra=32)), {"names": names(1)}, "rows for 33 classes, while its"),
    "YOLOv5-seg, rows alone, no metadata": (Answers(rows(1, extra=32)), {}, r"scores outside 0\.\.1, such as masks"),
    "YOLOv5 of TensorFlow": (Answers(rows(3) / 96), {}, "boxes that are not in pixels, as in exports"),
    "YOLOv5-cls": (Answers(torch.rand(1, 10)), {}, "one value per class and image, as in classification networks"),
    "YOLOv5 in training mode": (
        Answers(*(torch.rand(1, 3, 64 // s, 96 // s, 8) for s in (8, 16, 32))), STOCK, "feature maps of the head"
    ),
    "end to end": (Answers(boxes(300, 6)), {}, "1 x 300 x 6, probably boxes after non-maximum suppression"),
    "end to end, one class": (Answers(boxes(300, 6)), {"names": names(1)}, "boxes after non-maximum suppression"),
    "as many boxes as rows, one class": (Answers(boxes(378, 6)), {"names": names(1)}, "after non-maximum suppression"),
    "suppression by its metadata": (Answers(rows(1)), SUPPRESSED, "after non-maximum suppression, according to"),
    "end to end by its metadata": (Answers(rows(1)), {"end2end": True}, "non-maximum suppression, according"),
    "YOLOv7 end to end": (Answers(boxes(12, 7)[0]), {}, "12 x 7, probably boxes after non-maximum suppression"),
    "TensorRT's suppression": (
        Answers(torch.ones(1, 1), torch.rand(1, 100, 4), torch.rand(1, 100), torch.zeros(1, 100)),
        {},
        "1 x 1, 1 x 100 x 4, 1 x 100 and 1 more outputs, probably boxes after",
    ),
    "boxes and scores apart": (Answers(torch.rand(1, 378, 4), torch.rand(1, 378, 3)), {}, "probably boxes after"),
    "YOLOX": (Answers(torch.rand(1, cells(), 85)), {}, "one row per cell, as in detectors without anchors"),
    "RT-DETR": (Answers(torch.rand(1, 300, 84)), {}, "1 x 300 x 84, an unknown layout"),
    "other names": (Answers(rows(3)), {"names": names(2)}, "rows for 3 classes, while its metadata has 2"),
    "other nc": (Answers(rows(3)), {"nc": 80}, "rows for 3 classes, while its metadata has 80"),
    "an output more": (Answers(rows(3), torch.zeros(1, 5)), STOCK, "an unknown layout"),
    "NaN": (Answers(rows(3) * float("nan")), STOCK, "returns NaN or infinite values for a black image"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "onnx") for name in READ] + [("maps behind the rows", kind) for kind in ("torchscript", "openvino")],
)
def test_rows_of_yolov5_are_read(name: str, kind: str, tmp_path: Path) -> None:
    network, metadata, strides = READ[name]
    if missing := EXPORTERS[kind].missing():
        pytest.skip(f"{missing} is not installed")
    write, file = WRITERS[kind]
    predictor = open_predictor(write(network, tmp_path / file, metadata))
    expected = network.output0
    assert isinstance(expected, Tensor)
    assert predictor.nc == expected.shape[2] - 5 and predictor.strides == strides
    known = metadata.get("names", {number: f"class{number}" for number in range(predictor.nc)})
    assert dict(predictor.names) == known
    found = answered(predictor, torch.rand(1, 3, *SIZE))
    torch.testing.assert_close(found[..., :4], expected[..., :4], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[..., 4:], expected[..., 5:] * expected[..., 4:5], rtol=0, atol=1e-3)


ONE_CHECK = ("YOLOv8", "YOLOv5-seg", "end to end, one class", "suppression by its metadata")
"""Those that are tried in every runtime."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "onnx") for name in NOT_READ]
    + [(name, kind) for name in ONE_CHECK for kind in ("torchscript", "openvino")],
)
def test_other_layouts_are_refused_with_what_they_look_like(name: str, kind: str, tmp_path: Path) -> None:
    network, metadata, words = NOT_READ[name]
    if missing := EXPORTERS[kind].missing():
        pytest.skip(f"{missing} is not installed")
    write, file = WRITERS[kind]
    with pytest.raises(UserError, match=words) as caught:
        open_predictor(write(network, tmp_path / file, metadata))
    sentence = str(caught.value)
    beginning = f"{tmp_path / file} returns" if name == "NaN" else f"Cannot read {tmp_path / file}"
    assert sentence.startswith(beginning) and "\n" not in sentence
    assert (
        "Secateur opens its own exports, detectors exported by Ultralytics and YOLOv5 detectors" in sentence
        or name == "NaN"
    )


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (128, 160), (320, 320)])
def test_numbers_that_fit_by_chance_are_not_read(size: tuple[int, int]) -> None:
    """Boxes after suppression in any number, and YOLOv8's layout of any number of classes with boxes at their cells."""
    generator = np.random.default_rng(0)
    for count in (*range(5, 200), 252, 300, 378, 1000):
        for answer in (boxes(count, 6).numpy(), np.zeros((1, count, 6), np.float32)):
            assert isinstance(recognises(Answer(0, 1, size, [answer])), str)
    places = []
    for stride in (8, 16, 32):
        lines, columns = np.indices((size[0] // stride, size[1] // stride))
        places.append((np.stack((columns, lines)).reshape(2, -1) + 0.5) * stride)
    for nc in range(1, 92):
        answer = generator.random((1, 4 + nc, cells(size)), np.float32)
        answer[0, :2] = np.concatenate(places, axis=1)
        for turned in (answer, answer.transpose(0, 2, 1)):
            assert isinstance(recognises(Answer(0, 1, size, [turned])), str)


@pytest.mark.parametrize("metadata", [{}, {**ULTRALYTICS, "imgsz": [320, 320]}])
def test_open_sides_are_tried_once(metadata: dict[str, Any], tmp_path: Path) -> None:
    file = onnx_file(Pooled(3), tmp_path / "x.onnx", metadata, dynamic=True)
    shape = "1 x 7 x 2100" if metadata else "1 x 7 x 2016"
    with pytest.raises(UserError, match=f"it maps any x 3 x any x any to {shape}, the layout of YOLOv8 and later"):
        open_predictor(file)


@pytest.mark.parametrize(("name", "strides"), [("yolov5n", (8, 16, 32)), ("yolov5n6", (8, 16, 32, 64))])
def test_open_sides_of_stocks_own_file(name: str, strides: tuple[int, ...], lively: Any, tmp_path: Path) -> None:
    import onnx

    detector = lively(name)
    settings = ExportSettings(dynamic=True, any_size=True)
    file = export(detector, tmp_path / "x.onnx", 128, settings).path
    model = onnx.load(str(file))
    del model.metadata_props[:]
    onnx.save(model, str(file))
    predictor = open_predictor(file)
    assert (predictor.nc, predictor.image_size, predictor.strides) == (3, None, strides)
    images = torch.rand(2, 3, 192, 128)
    expected = expected_of(detector, images)
    torch.testing.assert_close(answered(predictor, images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("output", OUTPUTS)
def test_our_own_files_are_not_run_when_they_are_opened(
    output: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = export(detector, tmp_path / "x.onnx", 64, ExportSettings(output=output)).path
    calls: list[int] = []
    monkeypatch.setattr("secateur.deploy.formats.onnx.runtime.OnnxPredictor.run", lambda *a: calls.append(1))
    assert open_predictor(file).nc == 3 and not calls


@pytest.mark.parametrize(
    "change",
    [{"output": "raw"}, {"output": "detections"}, {"nc": "4"}, {"imgsz": "[64, 64]", "strides": "[8, 16, 16]"}],
)
def test_an_own_file_that_is_not_what_it_says_is_refused(
    change: dict[str, str], detector: Detector, tmp_path: Path
) -> None:
    import onnx

    file = export(detector, tmp_path / "x.onnx", 64, ExportSettings()).path
    model = onnx.load(str(file))
    told = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**told, **change})
    onnx.save(model, str(file))
    with pytest.raises(UserError, match="does not match its metadata") as caught:
        open_predictor(file)
    assert "it maps 1 x 3 x 64 x 64 to 1 x 252 x 8. Export it again" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 64, 96, 3), "its input is 1 x 64 x 96 x 3"), ((1, 3, 64), "its input is 1 x 3 x 64")],
)
def test_other_images_are_refused(shape: tuple[int, ...], words: str, tmp_path: Path) -> None:
    import onnx

    names_of = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["a"], ["b"])],
        "x",
        [names_of("a", onnx.TensorProto.FLOAT, shape)],
        [names_of("b", onnx.TensorProto.FLOAT, shape)],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "x.onnx",
    )
    with pytest.raises(UserError, match=f"{words}. Secateur opens"):
        open_predictor(tmp_path / "x.onnx")


def test_a_second_input_is_refused(tmp_path: Path) -> None:
    import onnx

    value = onnx.helper.make_tensor_value_info
    inputs = [value(name, onnx.TensorProto.FLOAT, (1, 3, 64, 64)) for name in ("images", "scale")]
    node = onnx.helper.make_node("Add", ["images", "scale"], ["out"])
    graph = onnx.helper.make_graph([node], "x", inputs, [value("out", onnx.TensorProto.FLOAT, (1, 3, 64, 64))])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "x.onnx")
    with pytest.raises(UserError, match=r"it takes 2 inputs. Expected one input of images"):
        open_predictor(tmp_path / "x.onnx")


@pytest.mark.parametrize("command", ["val", "predict", "bench"])
def test_every_command_refuses_alike(
    command: str, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = onnx_file(Answers(torch.rand(1, 7, cells())), tmp_path / "yolov8n.onnx")
    words = {
        "val": ["--weights", str(file), "--data", str(tiny_data)],
        "predict": ["--weights", str(file), str(tiny_data.parent / "images")],
        "bench": [str(file)],
    }
    with pytest.raises(SystemExit) as caught:
        main([command, *words[command]])
    assert caught.value.code == 2 and "the layout of YOLOv8 and later" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["decoded", "raw"])
def test_files_of_the_first_versions_name_no_family(output: str, detector: Detector, tmp_path: Path) -> None:
    import onnx

    file = export(detector, tmp_path / "x.onnx", 64, ExportSettings(output=output)).path
    model = onnx.load(str(file))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told.pop("family") == "yolov5"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, told)
    onnx.save(model, str(file))
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(answered(open_predictor(file), images), expected_of(detector, images), rtol=0, atol=1e-2)
