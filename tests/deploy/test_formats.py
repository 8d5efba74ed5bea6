"""Laws of every format: the detector's rows, the promised interface, metadata, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from export_formats import FORMATS, answered, expected_of
from law_subjects import subject_named
from secateur.deploy import check
from secateur.deploy.exporters import EXPORTERS, Exported, export
from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import is_exported, open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.nms import non_max_suppression
from secateur.evaluation.settings import NmsSettings
from secateur.families.yolov5.model import Detector

SIZE = (64, 96)
pytestmark = pytest.mark.parametrize("kind", FORMATS)


def written(detector: Detector, folder: Path, kind: str, **settings) -> Exported:
    return export(detector, folder / f"best{EXPORTERS[kind].suffix}", SIZE, ExportSettings(format=kind, **settings))


def opened(path: Path) -> FilePredictor:
    predictor = open_predictor(path)
    assert isinstance(predictor, FilePredictor)
    return predictor


def assert_rows(predictor: FilePredictor, detector: Detector, images: Tensor) -> None:
    """Scores within 1e-3, boxes within 1e-2 px."""
    expected, found = expected_of(detector, images), answered(predictor, images)
    assert (expected[..., 4:].std() / expected[..., 4:].mean()) > 0.1, "the detector is not lively"
    torch.testing.assert_close(found[..., 4:], expected[..., 4:], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[..., :4], expected[..., :4], rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny", "yolov5s-transformer"])
def test_rows_are_those_of_the_detector(lively, kind, name, tmp_path) -> None:
    detector = lively(name)
    file = written(detector, tmp_path, kind)
    assert file.max_error <= 1e-3 and file.batch == 1 and file.size == SIZE and file.file_mb > 1
    assert [entry.name for entry in tmp_path.iterdir()] == [file.path.name] and is_exported(file.path)
    assert_rows(opened(file.path), detector, torch.rand(1, 3, *SIZE))


@pytest.mark.parametrize("output", ["decoded", "raw"])
@pytest.mark.parametrize("batch", [2, 0])
def test_batches_of_two_and_of_any_number(detector, kind, output, batch, tmp_path) -> None:
    way = {"batch_size": batch} if batch else {"dynamic": True}
    predictor = opened(written(detector, tmp_path, kind, output=output, **way).path)
    assert predictor.batch == (batch or None) and predictor.image_size == SIZE
    images = torch.rand(5, 3, *SIZE)
    assert_rows(predictor, detector, images)
    if output == "raw":
        widths = [tuple(maps.shape[1:]) for maps in predictor.outputs(images)]
        assert widths == [(24, 8, 12), (24, 4, 6), (24, 2, 3)]


def test_a_grey_detectors_file_takes_one_channel(kind, tmp_path) -> None:
    detector = subject_named("grey").detector
    predictor = opened(written(detector, tmp_path, kind, dynamic=True).path)
    assert predictor.channels == 1 and predictor.metadata.channels == 1
    assert_rows(predictor, detector, torch.rand(3, 1, *SIZE))
    with pytest.raises(UserError, match="accepts images of shape any x 1 x 64 x 96, not 1 x 3 x 64 x 96"):
        predictor.infer(torch.rand(1, 3, *SIZE), 0.5)


def test_suppression_inside(detector, kind, tmp_path) -> None:
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = detector.eval()(images)
        rows = detector.decode(raw)
    best = (rows[..., 5:].amax(-1) * rows[..., 4]).flatten().sort(descending=True).values[20:60]
    gap = int((best[:-1] - best[1:]).argmax())  # no score lies on the threshold
    settings = NmsSettings(conf=float(best[gap : gap + 2].mean()), iou=0.5, max_det=20, multi_label=False)
    expected = non_max_suppression(detector.candidates(raw, settings.conf), settings)
    assert min(map(len, expected)) > 3
    inside = {"output": "detections", "conf": settings.conf, "iou": settings.iou, "max_det": settings.max_det}
    predictor = opened(written(detector, tmp_path, kind, batch_size=2, **inside).path)
    for found, boxes in zip(torch.from_numpy(predictor.outputs(images)[0]), expected, strict=True):
        assert found.shape == (20, 6) and not found[len(boxes) :].any()
        torch.testing.assert_close(found[: len(boxes)], boxes, rtol=0, atol=1e-2)


def test_half_precision(detector, kind, tmp_path) -> None:
    whole = written(detector, tmp_path, kind).file_mb
    file = written(detector, tmp_path / "half", kind, precision="fp16")
    assert file.file_mb < 0.6 * whole and 1e-5 < file.max_error <= 5e-2
    images = torch.rand(1, 3, *SIZE)
    expected = expected_of(detector, images)[0]
    found = answered(opened(file.path), images)[0]
    torch.testing.assert_close(found[:, 4:], expected[:, 4:], rtol=0, atol=5e-2)
    torch.testing.assert_close(found[:, :4], expected[:, :4], rtol=5e-2, atol=5e-2)


def test_what_the_file_says_of_itself(detector, kind, tmp_path) -> None:
    file = tmp_path / f"best{EXPORTERS[kind].suffix}"
    settings = ExportSettings(format=kind, precision="fp16", batch_size=2)
    metadata = opened(export(detector, file, SIZE, settings, about={"lineage": "train"}).path).metadata
    assert metadata.names == detector.names and metadata.strides == detector.strides
    assert (metadata.size, metadata.batch, metadata.output, metadata.precision) == (SIZE, 2, "decoded", "fp16")
    anchors = detector.head.anchors * torch.tensor(detector.strides).view(-1, 1, 1)
    torch.testing.assert_close(torch.tensor(metadata.told["anchors"]), anchors)


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_nothing_is_left_of_a_file_that_differs(detector, kind, error, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(check, "output_error", lambda *arguments: error)
    with pytest.raises(UserError, match="differs from the network"):
        written(detector, tmp_path, kind)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_traced_is_told_in_a_sentence(detector, kind, tmp_path, monkeypatch) -> None:
    def refuse(self: Detector, images: Tensor) -> list[Tensor]:
        raise RuntimeError("no\nway")

    monkeypatch.setattr(Detector, "forward", refuse)
    with pytest.raises(UserError, match=r"cannot be exported to .*: .*no way"):
        written(detector, tmp_path, kind)
    assert list(tmp_path.iterdir()) == []
