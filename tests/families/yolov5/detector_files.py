"""Detectors and files for the tests: lively detectors, an odd model, and the layout of YOLOv5 checkpoints."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from secateur.families.yolov5.blocks.attention import Attention
from secateur.families.yolov5.blocks.detect import Detect
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import parse_topology

# Hand-written on purpose with what the published models do not have: odd widths, groups, a transposed convolution,
# a skip from the stem, a plain batch norm, two levels, another activation.
ODD_YAML = """
nc: 4
depth_multiple: 0.5
width_multiple: 0.5
channel_multiple: 4
activation: nn.LeakyReLU(0.1)
anchors:
  - [10,13, 16,30]
  - [30,61, 62,45]
backbone:
  - [-1, 1, Focus, [24, 3]]
  - [-1, 1, Conv, [40, 3, 2, None, 4]]
  - [-1, 3, C3x, [48]]
  - [-1, 1, DWConv, [48, 5, 2]]
  - [-1, 4, BottleneckCSP, [72]]
  - [-1, 1, GhostBottleneck, [64, 3, 2]]
  - [-1, 2, CrossConv, [64, 3, 1]]
  - [-1, 1, SPP, [64, [3, 5]]]
head:
  - [-1, 1, DWConvTranspose2d, [64, 4, 2, 1]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, nn.BatchNorm2d, []]
  - [-1, 2, Bottleneck, [64, False]]
  - [-1, 1, nn.ConvTranspose2d, [32, 2, 2]]
  - [[12, 2], 1, Concat, [1]]
  - [-1, 2, C3TR, [32]]
  - [-1, 1, C3SPP, [32, [3, 5]]]
  - [[15, 11], 1, Detect, [nc, anchors]]
"""


def enliven(detector: Detector, seed: int = 0) -> Detector:
    """Random weights and statistics that keep signals alive: fresh weights hide mistakes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
            uniform(module.running_mean, -0.3, 0.3)
            uniform(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d):
            module.weight.data.mul_(2.0)
    return detector.eval()


def tiny(nc: int = 1) -> Detector:
    """A lively detector of a few kilobytes."""
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C3", [8]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "SPPF", [16, 5]]]
    head = [[[1, 3], 1, "Detect", ["nc", "anchors"]]]
    anchors = [[4.0, 5.0, 8.0, 9.0], [16.0, 20.0, 24.0, 30.0]]
    torch.manual_seed(0)
    return enliven(Detector(parse_topology({"nc": nc, "anchors": anchors, "backbone": rows, "head": head}, "tiny")))


def fake_class(module: str, name: str) -> type:
    """A class that pickles under a foreign name."""
    parent, _, leaf = module.partition(".")
    sys.modules.setdefault(parent, types.ModuleType(parent))
    home = sys.modules.setdefault(module, types.ModuleType(module))
    setattr(sys.modules[parent], leaf, home)
    if not hasattr(home, name):
        setattr(home, name, type(name, (nn.Module,), {"__module__": module}))
    return getattr(home, name)


@dataclass(frozen=True)
class Fork:
    """What a fork of YOLOv5 calls things: class name -> module and class in its place, and names of its children."""

    homes: dict[str, tuple[str, str]] = field(default_factory=dict)
    children: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def home(self, place: str, name: str) -> tuple[str, str]:
        """Module and name of a class."""
        return self.homes.get(name, (place, name))


def as_stock(module: nn.Module, fork: Fork = Fork()) -> nn.Module:
    """The module as an object of the foreign class of the same name, parameters and attributes included."""
    if isinstance(module, Attention):
        width = module.out_proj.in_features
        other = nn.MultiheadAttention(width, module.num_heads)
        other.load_state_dict(module.state_dict())
        return other
    if type(module).__module__.startswith("torch.nn"):
        twin: Any = type(module).__new__(type(module))
    else:
        name = type(module).__name__
        home = "models.yolo" if isinstance(module, Detect) else "models.common"
        kind = fake_class(*fork.home(home, name))
        twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    names = fork.children.get(type(module).__name__, tuple(module._modules))
    members = [None if member is None else as_stock(member, fork) for member in module._modules.values()]
    twin._modules = dict(zip(names, members, strict=True))
    return twin
