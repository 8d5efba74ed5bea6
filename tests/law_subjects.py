"""The networks that every law is tested on: topologies of the family made narrow, and an odd one written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import CONFIGS, Topology
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.plan import Plan

ODD = """
nc: 3
depth_multiple: 1.0
width_multiple: 1.0
channel_multiple: 4
activation: nn.LeakyReLU(0.1)
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
backbone:
  - [-1, 1, Focus, [12, 3]]
  - [-1, 1, Conv, [20, 3, 2]]
  - [-1, 2, BottleneckCSP, [24]]
  - [-1, 1, DWConv, [48, 3, 2]]
  - [-1, 2, C3x, [32]]
  - [-1, 1, SPP, [36, [3, 5]]]
  - [-1, 1, CrossConv, [36, 3, 1, 1, 1.0, True]]
  - [-1, 1, Conv, [40, 3, 2]]
  - [-1, 1, C3TR, [40]]
head:
  - [-1, 1, DWConvTranspose2d, [20, 4, 2, 1]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 1, C3Ghost, [32]]
  - [-1, 1, Conv, [28, 3, 2, None, 4]]
  - [[-1, 8], 1, Concat, [1]]
  - [-1, 1, C3SPP, [24, [3, 5]]]
  - [-1, 2, Bottleneck, [24]]
  - [[11, 15], 1, Detect, [nc, anchors]]
"""

# name -> (configuration, depth multiple, width multiple): narrow ones keep all wiring and make the laws quick.
NARROW: dict[str, tuple[str, float, float]] = {
    "yolov5n": ("yolov5", 0.33, 0.125),
    "yolov5s6": ("yolov5-p6", 0.33, 0.125),
    "yolov3-tiny": ("yolov3-tiny", 1.0, 0.125),
    "yolov5s-ghost": ("yolov5-ghost", 0.33, 0.25),
    "yolov5-p2": ("yolov5-p2", 0.33, 0.125),
    "yolov5-bifpn": ("yolov5-bifpn", 0.67, 0.125),
    "odd": ("", 1.0, 1.0),
    "grey": ("yolov5", 0.33, 0.125),
}
CHANNELS = {"grey": 1}
"""Of the image, where it is not 3."""


@dataclass(frozen=True)
class Subject:
    """A detector with lively weights, its graph, and an image size that suits it."""

    detector: Detector
    graph: ChannelGraph
    size: int

    def images(self, batch: int = 2) -> Tensor:
        """Random images [batch, channels, size, size]."""
        shape = (batch, self.detector.architecture.channels, self.size, self.size)
        return torch.rand(shape, generator=torch.Generator().manual_seed(5))

    def random_plan(self, seed: int, least: float = 0.0) -> Plan:
        """Each layer keeps a random share of its units, at least `least` and at least one unit."""
        generator = np.random.default_rng(seed)
        keep = np.zeros(self.graph.units, dtype=bool)
        for space in self.graph.spaces:
            kept = max(1, round(generator.uniform(least, 1) * len(space.units)))
            keep[generator.choice(space.units, kept, replace=False)] = True
        return Plan.of(self.graph, keep, self.size)


def enliven(network: nn.Module, seed: int = 0) -> None:
    """Random scales, shifts and statistics: with fresh ones a lost residual or a swapped channel would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                sign = torch.randint(0, 2, module.weight.shape, generator=generator) * 2.0 - 1
                module.weight.copy_(sign * (torch.rand(module.weight.shape, generator=generator) + 0.5))
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.5)
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.bias.shape, generator=generator) + 0.5)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator))


@cache
def detector_named(name: str) -> Detector:
    """Builds a network once; whoever changes it copies it."""
    config, depth, width = NARROW[name]
    data = yaml.safe_load(ODD if not config else (CONFIGS / f"{config}.yaml").read_text())
    data.update(nc=3, ch=CHANNELS.get(name, 3), depth_multiple=depth, width_multiple=width)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "topology.yaml"
        file.write_text(yaml.safe_dump(data))
        torch.manual_seed(0)
        detector = Detector(Topology.from_yaml(file), {0: "cell", 1: "dot", 2: "ring"})
    enliven(detector)
    return detector.eval()


@cache
def subject_named(name: str) -> Subject:
    """Traces a network once."""
    detector = detector_named(name)
    return Subject(detector, trace(detector), 2 * int(max(detector.strides)))
