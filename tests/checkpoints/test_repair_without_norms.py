"""A network without batch norms: there is nothing to correct, and that is said once."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

import secateur


def test_a_network_without_norms_is_not_run_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    calls = []
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    images = [np.zeros((40, 40, 3), np.uint8)] * 8
    with caplog.at_level(logging.INFO, "secateur"):
        smaller = secateur.prune(network, criterion="l2", params=0.5, round_to=1, correction_images=8, images=images)
    assert smaller.tensors["2.weight"].numel() < network[2].weight.numel()
    said = [record.getMessage() for record in caplog.records if "batch norm" in record.getMessage()]
    assert said == ["The network has no batch norms to correct: the cut is not repaired."]
    # Tracing runs it with one example; no batch of images follows.
    assert set(calls) <= {1}
