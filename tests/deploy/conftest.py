"""A lively detector for the tests of exports."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology


@pytest.fixture(scope="session")
def lively() -> Callable[..., Detector]:
    """Makes detectors with random weights whose BatchNorm layers do something."""

    def make(name: str, nc: int = 3) -> Detector:
        torch.manual_seed(0)
        detector = Detector(Topology.from_yaml(name, nc=nc), {i: f"thing {i}" for i in range(nc)})
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.2)
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
        return detector

    return make


@pytest.fixture(scope="session")
def detector(lively) -> Detector:
    return lively("yolov5n")
