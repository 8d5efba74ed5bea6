"""Timing in real runtimes: what is timed, never how long it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.deploy.timing import STOPWATCHES, settle
from secateur.families.loading import load_checkpoint
from secateur.pruning.latency import Signature

RUNTIMES = ("onnx", "torch")
SIGNATURES = [
    Signature("conv", (16, 16), (3, 3), (1, 1), (1, 1), activation="silu"),
    Signature("conv", (16, 16), (3, 3), (2, 2), (1, 1), per_group=(1, 1), activation="relu"),
    Signature("conv", (16, 16), activation="hardswish"),
    Signature("conv", (16, 16)),
    Signature("transposed", (8, 8), (2, 2), (2, 2)),
    Signature("concat", (16, 16)),
    Signature("add", (16, 16)),
    Signature("pool", (16, 16), (5, 5), (1, 1), (2, 2)),
    Signature("upsample", (8, 8), stride=(2, 2)),
]


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_layers(name: str, signature: Signature) -> None:
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    timing = STOPWATCHES[name].layers(signature, 16 if signature.reads_matter else 0, (8, 16, 32), 1)
    timing.turn()
    times = timing.milliseconds()
    assert len(times) == 3 and min(times) > 0


@pytest.mark.parametrize("name", RUNTIMES)
def test_networks(name: str, tiny_weights: Path) -> None:
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    stopwatch = STOPWATCHES[name]
    opened = [stopwatch.network(net, (1, 3, 64, 64), 1) for net in (load_checkpoint(tiny_weights).build(), plain)]
    threads = torch.get_num_threads()
    (detector,), (small,) = settle(opened)
    assert detector > 0 < small and torch.get_num_threads() == threads and plain.training
    assert stopwatch.installed and stopwatch.name.split()[-1][0].isdigit()
