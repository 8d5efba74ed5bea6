"""Fixtures for the detector tests: lively detectors, and writers of files in the layout of YOLOv5 checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_files import ODD_YAML, Fork, as_stock, enliven, fake_class
from torch import nn

from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology


@pytest.fixture
def odd_yaml(tmp_path: Path) -> Path:
    """A model file that no published model resembles."""
    path = tmp_path / "odd.yaml"
    path.write_text(ODD_YAML)
    return path


@pytest.fixture
def lively() -> Callable[..., Detector]:
    """Makes a lively detector of a model name or file."""

    def make(name: str | Path, nc: int | None = None, seed: int = 0) -> Detector:
        torch.manual_seed(seed)
        return enliven(Detector(Topology.from_yaml(name, nc)), seed)

    return make


@pytest.fixture
def write_upstream(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Writes a detector in the layout of a YOLOv5 checkpoint, with what differs between releases as options."""
    before = set(sys.modules)

    def write(
        detector: Detector,
        *,
        kind: str = "DetectionModel",
        half: bool = True,
        names: Any = None,
        ema: bool = False,
        yaml: dict[str, Any] | None = None,
        fork: Fork = Fork(),  # noqa: B008 (frozen)
        **content: Any,
    ) -> Path:
        model = fake_class(*fork.home("models.yolo", kind))()
        layers = nn.Sequential()
        for i, block in enumerate(detector.model):
            twin = as_stock(block, fork)
            twin.i, twin.f, twin.type = i, list(detector.topology.blocks[i].sources), type(block).__name__
            layers.add_module(str(i), twin)
        layers[-1].stride = torch.tensor(detector.strides)
        layers[-1].anchor_grid = [torch.zeros(1)] * detector.nl
        model.model = layers
        rows = [
            [
                list(b.sources),
                b.repeats,
                fork.home("", b.kind)[1],
                [list(a) if isinstance(a, tuple) else a for a in b.args],
            ]
            for b in detector.topology.blocks
        ]
        model.yaml = (
            yaml
            or {
                "nc": detector.nc,
                "depth_multiple": 1.0,
                "width_multiple": 1.0,
                "channel_multiple": 1,
                "anchors": [[1.0] * 2 * detector.na] * detector.nl,  # never used: the buffer counts
                "activation": f"nn.{detector.topology.activation}",
                "backbone": rows[:3],
                "head": [*rows[3:-1], [rows[-1][0], 1, "Detect", ["nc", "anchors"]]],
                "ch": 3,
            }
        )
        model.names = [f"thing {i}" for i in range(detector.nc)] if names is None else names
        if half:
            model.half()
        path = tmp_path / "stock.pt"
        slots = {"ema": model, "model": None} if ema else {"model": model, "ema": None}
        torch.save({"epoch": 3, **slots, "optimizer": None, **content}, path)
        return path

    yield write
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "models":
            del sys.modules[name]
