"""RT-DETR as a bare module: backbone and encoder are cut, and what of the decoder stays is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics.nn")

import ultralytics_subjects  # noqa: F401 (keeps the package off the network)

from secateur.families.outputs import tensors_of
from secateur.pruning.graph import trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask

# A narrow one with every block of rtdetr-l.
SMALL: dict[str, Any] = {
    "nc": 3,
    "backbone": [
        [-1, 1, "HGStem", [8, 16]],
        [-1, 1, "HGBlock", [8, 24, 3, 2]],
        [-1, 1, "DWConv", [24, 3, 2, 1, False]],
        [-1, 1, "HGBlock", [12, 32, 3, 2]],
        [-1, 1, "DWConv", [32, 3, 2, 1, False]],
        [-1, 2, "HGBlock", [12, 40, 5, 2, True, False]],
        [-1, 1, "DWConv", [40, 3, 2, 1, False]],
        [-1, 1, "HGBlock", [16, 48, 5, 2, True, True]],
    ],
    "head": [
        [-1, 1, "Conv", [32, 1, 1, None, 1, 1, False]],
        [-1, 1, "AIFI", [64, 4]],
        [-1, 1, "Conv", [32, 1, 1]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [5, 1, "Conv", [32, 1, 1, None, 1, 1, False]],
        [[-2, -1], 1, "Concat", [1]],
        [-1, 2, "RepC3", [32]],
        [-1, 1, "Conv", [32, 3, 2]],
        [[-1, 10], 1, "Concat", [1]],
        [-1, 1, "RepC3", [32]],
        [[14, 17], 1, "RTDETRDecoder", ["nc", 32, 10, 2, 4, 2, 64]],
    ],
}


def test_backbone_and_encoder_are_cut_exactly() -> None:
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    network: Any = lively(tasks.RTDETRDetectionModel(SMALL, nc=3, verbose=False))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    graph = trace(network, image)
    frozen = {entry.layer: entry.by for entry in graph.frozen}
    # The encoder's attention adds a code of its width to what it reads.
    encoder = {layer: by for layer, by in frozen.items() if not layer.startswith("model.18.")}
    assert set(encoder) == {"model.8.conv", "model.9.ma", "model.9.ma.out_proj", "model.9.fc2"}
    assert all("AIFI" in by or "MultiheadAttention" in by for by in encoder.values())
    assert {entry.place for entry in graph.frozen if entry.layer == "model.8.conv"} == {"model.9"}
    free = {layer for layer, units in graph.emitted.items() if (units >= 0).all()}
    assert {"model.9.fc1", "model.10.conv", "model.14.cv1.conv", "model.18.input_proj.0.0"} <= free
    keep = graph.everything()
    for space in graph.spaces:
        keep[space.units[1::3]] = False
    plan = Plan.of(graph, keep, 64)
    small, silent = cut(network, graph, plan), mask(network, graph, plan)
    assert plan.after.parameters == sum(tensor.numel() for tensor in small.parameters())
    assert plan.after.parameters < 0.75 * plan.before.parameters
    for training in (False, True):
        with torch.no_grad():
            mine, theirs = (tensors_of(net.double().train(training).predict(image.double())) for net in (small, silent))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(1.0, float(b.abs().max())))
