"""YOLOv5's own checkpoints: what another program with stock's classes, written for this test, makes of our files."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from law_subjects import NARROW, Subject, detector_named, subject_named
from secateur.deploy.exporters import export
from secateur.deploy.exporting import exported
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import topology_of
from secateur.families.yolov5.formats import upstream_writer
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.depth import candidates, remove
from secateur.pruning.graph import trace
from secateur.pruning.surgery import cut

SETTINGS = ExportSettings(format="yolov5")


class Conv(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))


class SPPF(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.m(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


class Concat(nn.Module):
    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class Detect(nn.Module):
    def forward(self, x: list[Tensor]) -> Tensor:
        rows = []
        for level in range(self.nl):
            y = self.m[level](x[level])
            b, _, ny, nx = y.shape
            y = y.view(b, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).sigmoid()
            row, column = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            xy = (y[..., :2] * 2 - 0.5 + torch.stack([column, row], -1)) * self.stride[level]
            wh = (y[..., 2:4] * 2) ** 2 * (self.anchors[level] * self.stride[level]).view(self.na, 1, 1, 2)
            rows.append(torch.cat([xy, wh, y[..., 4:]], -1).view(b, -1, self.no))
        return torch.cat(rows, 1)


class Model(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kept: list[Any] = []
        for m in self.model:
            if m.f != -1:
                x = kept[m.f] if isinstance(m.f, int) else [x if j == -1 else kept[j] for j in m.f]  # type: ignore[assignment]
            x = m(x)
            kept.append(x if m.i in self.save else None)
        return x


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The double's classes stand where stock's would."""
    common, yolo = ModuleType("models.common"), ModuleType("models.yolo")
    for module, kinds in ((common, (Conv, Bottleneck, C3, SPPF, Concat)), (yolo, (Detect, Model))):
        for kind in kinds:
            setattr(module, kind.__name__, kind)
    for name, module in (("models", ModuleType("models")), ("models.common", common), ("models.yolo", yolo)):
        monkeypatch.setitem(sys.modules, name, module)
    yield


def written(detector: Any, folder: Path) -> Path:
    return export(detector, folder / "best.pt", 64, SETTINGS).path


@cache
def subjects() -> dict[str, Any]:
    """Dense, cut, cut twice, and without bottlenecks."""
    subject = subject_named("yolov5n")
    once = cut(subject.detector, subject.graph, subject.random_plan(1))
    again = Subject(once, trace(once), subject.size)
    twice = cut(once, again.graph, again.random_plan(2))
    shorter = remove(subject.detector, [block.name for block in candidates(subject.detector)][:2])
    return {"dense": subject.detector, "cut": once, "twice": twice, "shorter": shorter}


@pytest.mark.parametrize("which", ["dense", "cut", "twice", "shorter"])
def test_a_program_with_stocks_classes_gets_the_same_outputs(which: str, double: None, tmp_path: Path) -> None:
    detector = subjects()[which].eval()
    file = written(detector, tmp_path)
    model = torch.load(file, weights_only=False)["model"].float().eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(images), detector.predict(images), rtol=1e-5, atol=1e-4)
    assert type(model) is Model and type(model.model[-1]) is Detect
    assert isinstance(model.names, list) and len(model.names) == model.nc == detector.nc
    assert model.stride.tolist() == list(detector.strides) and model.yaml["nc"] == detector.nc
    for number, layer in enumerate(model.model):
        assert layer.i == number and layer.np == sum(p.numel() for p in layer.parameters())
        assert layer.type.rpartition(".")[2] == type(layer).__name__
        assert isinstance(layer.f, int | list)
    head = model.model[-1]
    assert (head.no, head.nl, len(head.grid), len(head.anchor_grid)) == (head.nc + 5, len(head.m), head.nl, head.nl)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
    model.half().float()  # moving and casting must find every tensor a tensor
    assert not any(name.startswith("models") and "site-packages" in str(m) for name, m in sys.modules.items())


@pytest.mark.parametrize("name", list(NARROW))
def test_our_reader_reads_it_back(name: str, tmp_path: Path) -> None:
    detector = detector_named(name)
    back = load_checkpoint(written(detector, tmp_path)).build().eval()
    side = 2 * int(max(detector.strides))
    images = torch.rand(1, detector.architecture.channels, side, side)
    with torch.no_grad():
        torch.testing.assert_close(back.predict(images), detector.predict(images), rtol=0, atol=1e-6)
    assert back.names == detector.names


def test_a_cut_one_is_said_to_be_no_start_for_stocks_training(tmp_path: Path) -> None:
    subject = subject_named("yolov5n")
    smaller = cut(subject.detector, subject.graph, subject.random_plan(1))
    assert "train.py does not keep the cut" in export(smaller, tmp_path / "a.pt", 64, SETTINGS).notes[0]
    assert export(subject.detector, tmp_path / "b.pt", 64, SETTINGS).notes == ()


def test_half_precision_where_nothing_is_lost(tmp_path: Path) -> None:
    detector = subject_named("yolov5n").detector
    full = export(detector, tmp_path / "a.pt", 64, SETTINGS).file_mb
    assert export(copy.deepcopy(detector).half().float(), tmp_path / "b.pt", 64, SETTINGS).file_mb < 0.7 * full


def test_a_block_that_stock_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_writer, "KNOWN", frozenset({"Conv"}))
    with pytest.raises(UserError, match=r"YOLOv5 has no block (C3|Bottleneck)"):
        written(subject_named("yolov5n").detector, tmp_path)
    assert not list(tmp_path.iterdir())


def test_official_weights_come_out_as_they_went_in(reference_dir: Path, double: None, tmp_path: Path) -> None:
    outputs = reference_dir / "reference/outputs"
    detector = load_checkpoint(reference_dir / "weights/yolov5n.pt").build()
    assert isinstance(detector, Detector)
    model = torch.load(written(detector, tmp_path), weights_only=False)["model"].float().eval()
    image = torch.from_numpy(np.load(outputs / "input.npz")["image"]).float() / 255
    expected = torch.from_numpy(np.load(outputs / "yolov5n.npz")["decoded"])
    with torch.no_grad():
        torch.testing.assert_close(model(image), expected, rtol=0, atol=2e-3)


def test_anchors_that_were_never_computed_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    topology = Topology.from_yaml("yolov5n", nc=2, anchors=3)
    narrow = topology.with_widths(dict.fromkeys(topology.widths, 8))
    exported(Checkpoint.of(Detector(narrow)), tmp_path / "fresh", 64, ExportSettings(format="yolov5"))
    assert caplog.text.count("The anchors are placeholders: the model file leaves them to be computed") == 1
    # The file holds these anchors as numbers, as YOLOv5's own do.
    assert not topology_of(load_checkpoint(tmp_path / "fresh.pt")).anchors_pending
