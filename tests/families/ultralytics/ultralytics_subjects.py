"""Networks of the package ultralytics with lively weights, written by the package and read by Secateur."""

from __future__ import annotations

import copy
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="ultralytics-"))
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

import numpy as np
import torch
from torch import Tensor

from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.plan import Plan

DETECTORS = ("yolov5nu", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n")
OTHERS = tuple(f"{name}-{task}" for name in ("yolov8n", "yolo11n", "yolo26n") for task in ("seg", "pose", "obb", "cls"))
NAMES = {0: "disc", 1: "square", 2: "triangle"}
SIZE = 64
_MODELS = {"seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel", "cls": "ClassificationModel"}


def fresh(name: str, nc: int = 3) -> Any:
    """The package's own model with random weights, scales, shifts and statistics."""
    from ultralytics.nn import tasks

    kind = _MODELS.get(name.partition("-")[2], "DetectionModel")
    torch.manual_seed(0)
    model: Any = lively(getattr(tasks, kind)(f"{name}.yaml", nc=nc, verbose=False))
    bins = getattr(getattr(model.model[-1], "dfl", None), "conv", None)
    if bins is not None:  # not learned: the distance of each bin
        bins.weight.data.copy_(torch.arange(bins.in_channels).view(1, -1, 1, 1))
    model.names = NAMES if nc == 3 else {number: f"kind{number}" for number in range(nc)}
    return model


def save(model: Any, file: Path, **fields: Any) -> Path:
    """A checkpoint as the package's trainer saves one."""
    import ultralytics

    content = {
        "epoch": -1,
        "best_fitness": None,
        "model": copy.deepcopy(model).half(),
        "ema": None,
        "optimizer": None,
        "train_args": {"imgsz": SIZE, "box": 7.5, "cls": 0.5, "dfl": 1.5, "model": "x.yaml"},
        "version": ultralytics.__version__,
    }
    torch.save({**content, **fields}, file)
    return file


@cache
def checkpoint_named(name: str) -> Checkpoint:
    """Reads a network once."""
    with tempfile.TemporaryDirectory() as folder:
        return load_checkpoint(save(fresh(name), Path(folder) / f"{name}.pt"))


@dataclass(frozen=True)
class Subject:
    """A network, its graph and images."""

    name: str
    network: Any
    graph: ChannelGraph

    def images(self, batch: int = 2, size: int = SIZE) -> Tensor:
        return torch.rand((batch, 3, size, size), generator=torch.Generator().manual_seed(5))

    def plan(self, seed: int = 0, least: float = 0.4) -> Plan:
        """Each space keeps a random share of its units, at least `least` and at least one unit."""
        generator = np.random.default_rng(seed)
        keep = np.zeros(self.graph.units, dtype=bool)
        for space in self.graph.spaces:
            kept = max(1, round(generator.uniform(least, 1) * len(space.units)))
            keep[generator.choice(space.units, kept, replace=False)] = True
        return Plan.of(self.graph, keep, SIZE)


@cache
def subject_named(name: str) -> Subject:
    """Traces a network once."""
    network = checkpoint_named(name).build()
    return Subject(name, network, trace(network))
