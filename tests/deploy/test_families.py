"""Files of other families: a classifier, and detectors of class scores alone or of final boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from export_formats import FORMATS
from secateur.deploy import check
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.evaluation.nms import Candidates
from secateur.evaluation.settings import NmsSettings
from secateur.families.detection.outputs import detector_decoder, detector_outputs
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.family import FAMILIES, Family
from secateur.families.outputs import Form, Opened, Outputs
from secateur.networks.tensors import set_tensors_

SIZE, NC = (32, 48), 3
NAMES = {0: "disc", 1: "square", 2: "star"}


@dataclass(frozen=True)
class Plan:
    """Which of the toy networks; nothing else distinguishes them."""

    kind: str
    nc: int = NC
    channels: int = 3

    def build(self, names: Mapping[int, str]) -> nn.Module:
        return NETWORKS[self.kind](self)

    def with_classes(self, nc: int) -> Plan:
        return replace(self, nc=nc)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        return cls(**data)


class Toy(nn.Module):
    """A small body, and what every described network has."""

    def __init__(self, plan: Plan, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.architecture, self.names = plan, dict(NAMES)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, width, 4, 4))

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 3, image_size or 32, image_size or 32),)

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        set_tensors_(self, tensors)


class Sorter(Toy):
    """A classifier: images -> [B, nc]."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, 16)
        self.head = nn.Linear(16, NC)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


class Spots(Toy):
    """A detector: images -> corners and class scores [B, 4 + nc, N], a box a cell of 8 px."""

    nc, strides = NC, (8.0,)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, 4 + NC)

    def forward(self, images: Tensor) -> Tensor:
        raw = 3 * self.body(images)
        y, x = (torch.arange(side, dtype=raw.dtype) for side in raw.shape[2:])
        cells = torch.stack(torch.meshgrid(x, y, indexing="xy"))
        first = (raw[:, :2].sigmoid() + cells - 0.5) * 8
        return torch.cat((first, first + 16 * raw[:, 2:4].sigmoid(), raw[:, 4:].sigmoid()), 1).flatten(2)

    def candidates(self, raw: Tensor, confidence: float) -> list[Candidates]:
        return [columns(of_image, confidence) for of_image in raw]


class Finals(Spots):
    """The same with final boxes: the best class of each cell."""

    candidates = None  # type: ignore[assignment]

    def boxes(self, raw: Tensor) -> list[Tensor]:
        best, label = raw[:, 4:].max(1, keepdim=True)
        return list(torch.cat((raw[:, :4], best, label.float()), 1).transpose(1, 2))


def columns(answer: Tensor, confidence: float) -> Candidates:
    """Boxes and scores of one image [4 + nc, N]."""
    sure = (answer[4:] > confidence).any(0)
    return Candidates(answer[:4, sure].T, answer[4:, sure].T)


class SorterFamily(Family):
    kind, title, architecture = "toysorter", "toy classifier", Plan

    def prepare(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - 0.45) / 0.25


class SpotsFamily(Family):
    """A family that names its outputs itself: those of the network."""

    kind, title, architecture = "toyspots", "toy detector", Plan

    def predictor(self, network: nn.Module, precision: str = "fp32") -> TorchPredictor:
        return TorchPredictor(network, precision)

    def decoder(self, opened: Opened) -> Any:
        if opened.gives[0][1] not in (None, 4 + len(opened.names)):
            raise ValueError("no columns of boxes")
        return Columns(len(opened.names), opened.strides)


@dataclass(frozen=True)
class Columns:
    nc: int
    strides: tuple[float, ...]
    used: int | None = 1
    final: ClassVar[bool] = False

    def __call__(self, outputs: Sequence[Tensor], size: tuple[int, int], confidence: float) -> list[Candidates]:
        return [columns(of_image, confidence) for of_image in outputs[0]]


class UsualFamily(SpotsFamily):
    """A family that takes what all detectors share."""

    kind = "toyusual"

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        return detector_outputs(network, form)

    def decoder(self, opened: Opened) -> Any:
        return detector_decoder(opened)


class FinalsFamily(UsualFamily):
    kind = "toyfinals"


NETWORKS: dict[str, type[Any]] = {"toysorter": Sorter, "toyspots": Spots, "toyusual": Spots, "toyfinals": Finals}
DETECTORS = ("toyspots", "toyusual", "toyfinals")


@pytest.fixture(autouse=True)
def families(monkeypatch: pytest.MonkeyPatch) -> None:
    list(FAMILIES)  # those of the program, found at the first look
    for family in (SorterFamily(), SpotsFamily(), UsualFamily(), FinalsFamily()):
        monkeypatch.setitem(FAMILIES._methods, family.kind, family)


def network(kind: str) -> Any:
    toy = Plan(kind).build(NAMES).eval()
    with torch.no_grad():
        toy.body[1].running_mean.normal_(std=0.2)
        toy.body[1].running_var.uniform_(0.5, 1.5)
    return toy


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def written(toy: nn.Module, folder: Path, kind: str = "onnx", **settings: Any) -> FilePredictor:
    seen = settings.pop("images", ())
    file = folder / f"toy{EXPORTERS[kind].suffix}"
    result = export(toy, file, SIZE, ExportSettings(format=kind, **settings), images=seen)
    assert result.max_error <= check.TOLERANCE[result.precision]
    opened = open_predictor(file)
    assert isinstance(opened, FilePredictor)
    return opened


@pytest.mark.parametrize("kind", FORMATS)
def test_a_classifiers_file_gives_its_scores(kind: str, tmp_path: Path) -> None:
    toy = network("toysorter")
    opened = written(toy, tmp_path, kind, dynamic=True)
    assert (opened.metadata.family, opened.names, opened.decoder, opened.nc) == ("toysorter", NAMES, None, NC)
    assert "task" not in opened.metadata.told
    [scores] = opened.outputs(images(3))
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(scores), toy(images(3)), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=r"1 outputs of \S*toy\S+ are not boxes. Read them with `outputs`"):
        opened.predict(images())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("family", DETECTORS)
def test_a_detectors_file_answers_as_the_detector_does(family: str, kind: str, tmp_path: Path) -> None:
    toy, settings = network(family), NmsSettings(conf=0.5, iou=0.5)
    opened = written(toy, tmp_path, kind, batch_size=2)
    assert (opened.names, opened.nc, opened.strides, opened.image_size) == (NAMES, NC, (8.0,), SIZE)
    shapes = {"toyspots": (2, 7, 24), "toyusual": (2, 24, 7), "toyfinals": (2, 24, 6)}
    assert opened.outputs(images())[0].shape == shapes[family]
    expected = TorchPredictor(toy).predict(images(), settings)
    assert min(map(len, expected)) > 2
    for found, boxes in zip(opened.predict(images(), settings), expected, strict=True):
        torch.testing.assert_close(found, boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", FORMATS)
def test_suppression_inside_a_file_of_any_detector(kind: str, tmp_path: Path) -> None:
    toy, settings = network("toyusual"), NmsSettings(conf=0.5, iou=0.5, max_det=9, multi_label=False)
    inside = {"output": "detections", "conf": 0.5, "iou": 0.5, "max_det": 9}
    opened = written(toy, tmp_path, kind, batch_size=2, **inside)
    expected = TorchPredictor(toy).predict(images(), settings)
    for found, boxes in zip(torch.from_numpy(opened.outputs(images())[0]), expected, strict=True):
        torch.testing.assert_close(found[: len(boxes)], boxes, rtol=0, atol=1e-4)
        assert not found[len(boxes) :].any() and len(boxes) > 2


@pytest.mark.parametrize("family", ["toyusual", "toyfinals"])
def test_raw_outputs_are_those_of_forward(family: str, tmp_path: Path) -> None:
    toy = network(family)
    opened = written(toy, tmp_path, output="raw", dynamic=True)
    assert opened.decoder is None
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(opened.outputs(images(3))[0]), toy(images(3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("output", ["raw", "detections"])
def test_outputs_that_a_family_lacks_are_refused(output: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"has no output {output}: .* Omit --output"):
        export(network("toysorter"), tmp_path / "a.onnx", SIZE, ExportSettings(output=output))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", NETWORKS)
def test_the_check_sees_a_difference(family: str, tmp_path: Path) -> None:
    opened, other = written(network(family), tmp_path), network(family)
    with torch.no_grad():
        other.body[3].bias += 0.01
    for toy, least, most in ((network(family), 0.0, 1e-4), (other, 1.1e-3, 1e9)):
        assert least <= check.output_error(Source.of(toy, SIZE), opened, [images(1)], ExportSettings()) <= most


PICTURES = [
    torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)) for i in range(4)
]


@pytest.mark.parametrize("family", NETWORKS)
def test_int8_is_calibrated_on_prepared_images(family: str, tmp_path: Path) -> None:
    toy = network(family)
    [batch, rest] = Source.of(toy, SIZE, images=PICTURES).calibration(3)
    prepared = FAMILIES[family].prepare(torch.stack(PICTURES[:3]))
    np.testing.assert_array_equal(batch, prepared.numpy())
    assert rest.shape == (3, 3, *SIZE)
    assert written(toy, tmp_path, precision="int8", images=PICTURES).metadata.precision == "int8"


@pytest.mark.parametrize(("factor", "error"), [(1.0, 0.0), (1.5, 0.5), (float("nan"), float("inf"))])
def test_the_error_of_a_quantised_classifier_is_a_share_of_its_scores(
    factor: float, error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = network("toysorter")
    opened, source = written(toy, tmp_path), Source.of(toy, SIZE, images=PICTURES)
    outputs = opened.outputs
    monkeypatch.setattr(opened, "outputs", lambda given: [factor * output for output in outputs(given)])
    assert check.seen_error(source, opened, ExportSettings(precision="int8")) == pytest.approx(error, abs=1e-4)


def test_a_file_of_a_family_that_is_not_there_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(network("toysorter"), tmp_path)
    monkeypatch.delitem(FAMILIES._methods, "toysorter")
    with pytest.raises(UserError, match=r"toy\.onnx holds a network of the unknown family 'toysorter'"):
        open_predictor(tmp_path / "toy.onnx")


@pytest.mark.parametrize("family", ["toyspots", "toyusual"])
def test_a_file_whose_outputs_are_others_is_refused(family: str, tmp_path: Path) -> None:
    import onnx

    written(network(family), tmp_path)
    model = onnx.load(str(tmp_path / "toy.onnx"))
    told = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**told, "names": "{0: 'disc'}", "nc": "1"})
    onnx.save(model, str(tmp_path / "toy.onnx"))
    with pytest.raises(UserError, match=r"does not match its metadata \(decoded output, 1 classes\)"):
        open_predictor(tmp_path / "toy.onnx")


def test_exporting_and_timing_know_no_family() -> None:
    source = Path(secateur.__file__).parent
    for file in (source / "deploy").rglob("*.py"):
        found = re.findall(r"anchor|objectness|families\.yolov5", file.read_text(), re.IGNORECASE)
        assert not found, f"{file} says {found}"
