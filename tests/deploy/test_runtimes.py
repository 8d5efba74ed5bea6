"""Exported files as predictors: rows, boxes, metrics of the detector; files that are no models."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from export_formats import FORMATS
from secateur.data.config import load_data_config
from secateur.data.index import Index, scan
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import RUNTIMES, open_predictor, runtime_of
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import NmsSettings, ValSettings
from secateur.evaluation.validate import validate
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.loading import load_checkpoint
from secateur.files import read_json
from secateur.terminal import silenced

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def files(detector, tmp_path_factory) -> dict[str, Path]:
    """The same detector for one image, for two, and for any number of them."""
    folder = tmp_path_factory.mktemp("files")
    ways = {"one": ExportSettings(), "two": ExportSettings(batch_size=2), "any": ExportSettings(dynamic=True)}
    return {way: export(detector, folder / f"{way}.onnx", (64, 96), settings).path for way, settings in ways.items()}


@pytest.mark.parametrize("way", ["one", "two", "any"])
def test_a_file_answers_as_the_detector_does(detector, files, way: str) -> None:
    predictor, twin = open_predictor(files[way]), TorchPredictor(detector)
    assert isinstance(predictor, FilePredictor) and isinstance(predictor, Predictor)
    assert predictor.names == detector.names and predictor.nc == 3 and max(predictor.strides) == 32
    assert predictor.image_size == (64, 96) and predictor.device == torch.device("cpu")
    images = torch.rand(5, 3, 64, 96)
    settings = NmsSettings(conf=0.2)
    with torch.no_grad():
        least = float(detector.eval().predict(images)[..., 4].median())
    for confidence in (0.0, least - 1e-4):
        ours, theirs = predictor.infer(images, confidence), twin.infer(images, confidence)
        assert len(ours) == 5
        for a, b in zip(ours, theirs, strict=True):
            assert abs(len(a.boxes) - len(b.boxes)) <= 2  # some are on the threshold
            if len(a.boxes) == len(b.boxes):
                torch.testing.assert_close(torch.cat(a, 1), torch.cat(b, 1), rtol=1e-3, atol=1e-2)
    assert [boxes.shape[1] for boxes in predictor.predict(images, settings)] == [6] * 5


def with_objects(index: Index, rows: list[dict], every: int = 3) -> Index:
    """The index with other labels: of what a detector found the best boxes, every third of them, moved a little."""
    labels = [np.zeros((0, 5), np.float32)]
    for file, (height, width) in zip(index.files, index.shapes.tolist(), strict=True):
        mine = sorted((row for row in rows if row["image_id"] == int(Path(file).stem)), key=lambda row: -row["score"])
        boxes = np.array([[row["category_id"], *row["bbox"]] for row in mine[: 6 * every : every]]).reshape(-1, 5)
        boxes[:, 1:3] += boxes[:, 3:] * (0.5 + 0.04 * np.arange(len(boxes))[:, None])
        boxes[:, 1:] /= (width, height, width, height)
        labels.append(boxes.astype(np.float32))
    offsets = np.cumsum([0, *(len(rows) for rows in labels[1:])])
    return replace(index, labels=np.concatenate(labels), offsets=offsets, point_offsets=np.zeros(0, np.int64))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_metrics_are_those_of_the_detector(lively, tiny_cfg, tmp_path, kind: str) -> None:
    detector = lively(str(tiny_cfg))
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # the statistics of noise, so that what is in the image reaches the head
        detector.train()(torch.rand(16, 3, 64, 64))
    (tmp_path / "images").mkdir()
    for i in range(8):  # of noise: on plain areas boxes tie, and rounding would decide which one is kept
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), noise)
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [a, b, c]\n")
    index = scan(load_data_config(tmp_path / "data.yaml"), "val", progress=False)
    file = export(detector, tmp_path / f"tiny{EXPORTERS[kind].suffix}", 64, ExportSettings(format=kind)).path
    settings = ValSettings(image_size=64, workers=0, coco=True, rectangular=False, save_json=True)
    validate(TorchPredictor(detector), index, settings, folder=tmp_path, progress=False)
    index = with_objects(index, read_json(tmp_path / "predictions.json"))
    settings = replace(settings, save_json=False)
    expected = validate(TorchPredictor(detector), index, settings, progress=False)
    assert 0.1 < expected.mAP50_95 < 0.9
    for ours in (settings, replace(settings, rectangular=True, image_size=0, batch_size=3)):
        found = validate(open_predictor(file), index, ours, progress=False)
        assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-3)
        assert found.coco == pytest.approx(expected.coco, abs=1e-3)
        assert set(found.speed_ms) == {"preprocess", "inference", "nms"} and found.shape[2:] == (64, 64)


def test_another_size_than_the_file_takes_is_told(files, tiny_data, caplog) -> None:
    index = scan(load_data_config(tiny_data), "val", progress=False)
    settings = ValSettings(image_size=640, workers=0)
    assert validate(open_predictor(files["any"]), index, settings, progress=False).shape[2:] == (64, 96)
    assert "accepts only images of 64 x 96 pixels" in caplog.text
    with pytest.raises(UserError, match="accepts images of shape 1 x 3 x 64 x 96, not 1 x 3 x 64 x 64"):
        open_predictor(files["one"]).infer(torch.zeros(1, 3, 64, 64), 0.1)


def test_a_device_that_the_runtime_lacks_is_told(files, caplog, monkeypatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert open_predictor(files["one"], "cuda:1").device == torch.device("cpu")
    assert "no cuda" in caplog.text


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_threads_are_those_that_are_granted(files, monkeypatch) -> None:
    cpu = min(os.sched_getaffinity(0))
    code = f"""
import os
os.sched_setaffinity(0, {{{cpu}}})
os.environ.pop("OMP_NUM_THREADS", None)
import onnxruntime
from secateur.deploy.runtimes import open_predictor
print(open_predictor({str(files["one"])!r}).threads, open_predictor({str(files["one"])!r}, threads=3).threads)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1 3\n"


OPENING = "from secateur.deploy.runtimes import open_predictor; open_predictor(file)"
TIMING = "from secateur.deploy.timing import STOPWATCHES; assert STOPWATCHES['onnx'].installed"
QUANTISING = """
import contextlib, onnx
from secateur.deploy.formats.onnx.int8 import quantised
with contextlib.suppress(Exception):
    quantised(onnx.load(file), iter([]), None, 17)
"""


@pytest.mark.parametrize("code", [OPENING, TIMING, QUANTISING])
def test_makers_of_onnx_runtime_learn_nothing(files, tmp_path, code: str) -> None:
    code = f"import sys; file = {str(files['one'])!r}\n{code}\nprint('onnxruntime' in sys.modules)"
    # In CI it reports nothing by itself.
    signs = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in signs} | {"HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout == "True\n" and list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_opened_likewise(tiny_weights) -> None:
    threads = torch.get_num_threads()
    predictor = open_predictor(tiny_weights, threads=threads, precision="bf16")
    assert isinstance(predictor, TorchPredictor) and predictor.image_size is None and predictor.nc == 3
    assert runtime_of(tiny_weights).title == "PyTorch" and torch.get_num_threads() == threads
    exact = TorchPredictor(load_checkpoint(tiny_weights).build())
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(predictor.infer(images, 0.0)[0], exact.infer(images, 0.0)[0], rtol=0.1, atol=0.1)


def test_the_precision_of_an_exported_file_is_its_own(files, caplog) -> None:
    open_predictor(files["one"], precision="bf16")
    assert "of its export, not in bf16" in caplog.text


def test_files_that_are_no_models_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="no file"):
        open_predictor(tmp_path / "missing.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"not a model")
    with pytest.raises(UserError, match="ONNX Runtime cannot run"):
        open_predictor(tmp_path / "junk.onnx")
    with pytest.raises(
        UserError, match=r"Cannot open .*best.engine: no runtime for this file type. Supported: .*\.onnx"
    ):
        open_predictor(tmp_path / "best.engine")
    assert ".onnx" in RUNTIMES


def test_a_model_that_is_no_detector_is_refused(tmp_path) -> None:
    with silenced():
        torch.onnx.export(torch.nn.Flatten(), (torch.zeros(1, 3, 8, 8),), str(tmp_path / "a.onnx"), dynamo=False)
    with pytest.raises(UserError, match="it maps 1 x 3 x 8 x 8 to 1 x 192, one value per"):
        open_predictor(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "text", ["{'0': 'cat', 1: 'dog', 2: 'cow'}", "['cat', 'dog', 'cow']", "", "__import__('os')", "{1:"]
)
def test_class_names_are_read_and_nothing_is_run(files, tmp_path, text: str) -> None:
    import onnx

    model = onnx.load(str(files["one"]))
    onnx.helper.set_model_props(model, {"names": text})
    onnx.save(model, str(tmp_path / "a.onnx"))
    predictor = open_predictor(tmp_path / "a.onnx")
    known = {0: "cat", 1: "dog", 2: "cow"} if "cat" in text else {i: f"class{i}" for i in range(3)}
    assert predictor.nc == 3 and max(predictor.strides) == 32 and dict(predictor.names) == known


def test_images_in_any_layout(files) -> None:
    images = torch.rand(2, 3, 64, 96)
    predictor = open_predictor(files["any"])
    plain, other = (predictor.infer(x, 0.0) for x in (images, images.contiguous(memory_format=torch.channels_last)))
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_array_equal(torch.cat(a, 1).numpy(), torch.cat(b, 1).numpy())
