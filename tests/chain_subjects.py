"""Narrow detectors with chains of bottlenecks of every kind, for the tests of layer pruning."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from torch import nn

from law_subjects import enliven
from secateur.families.yolov5.blocks import link_of
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import CONFIGS, Topology

# YOLOv3's rows of repeated bottlenecks, the cross-stage block of the first releases, and cross convolutions.
MIXED = """
nc: 3
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Bottleneck, [8]]
  - [-1, 3, Bottleneck, [16]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 4, Bottleneck, [16]]
  - [-1, 3, BottleneckCSP, [16]]
  - [-1, 1, Conv, [24, 3, 2]]
  - [-1, 2, CrossConv, [24, 3, 1, 1, 1.0, True]]
  - [-1, 2, C3x, [24]]
head:
  - [-1, 1, Bottleneck, [16, False]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 2, Bottleneck, [16, False]]
  - [-1, 2, C3, [16, False]]
  - [[13, 9], 1, Detect, [nc, anchors]]
"""

CONFIGURATIONS = {
    "yolov5": ("yolov5", 0.67, 0.125),
    "yolov5-p6": ("yolov5-p6", 0.33, 0.125),
    "yolov3": ("yolov3", 1.0, 0.0625),
    "yolov5-ghost": ("yolov5-ghost", 0.33, 0.25),
    "mixed": ("", 1.0, 1.0),
}
CHAINED = list(CONFIGURATIONS)


@cache
def chained(name: str) -> Detector:
    """A detector with lively weights, in eval mode; made once, so copy it to change it."""
    config, depth, width = CONFIGURATIONS[name]
    data = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text() if config else MIXED)
    data.update(nc=3, depth_multiple=depth, width_multiple=width)
    if name == "mixed":
        data["channel_multiple"] = 4
    with TemporaryDirectory() as folder:
        file = Path(folder) / "topology.yaml"
        file.write_text(yaml.safe_dump(data))
        torch.manual_seed(0)
        detector = Detector(Topology.from_yaml(file))
    enliven(detector)
    return detector.eval()


def silenced(detector: Detector, blocks: list[str]) -> Detector:
    """A copy in which the branches of these residual blocks give zero."""
    silent = copy.deepcopy(detector)
    with torch.no_grad():
        for name in blocks:
            block = silent.get_submodule(name)
            link = link_of(block)
            assert link is not None and link.residual(block)
            for end in link.ends:
                for norm in (m for m in block.get_submodule(end).modules() if isinstance(m, nn.BatchNorm2d)):
                    norm.weight.zero_()
                    norm.bias.zero_()
    return silent
