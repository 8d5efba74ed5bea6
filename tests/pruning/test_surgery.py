"""Cutting: shapes, what is copied, what is kept of parameters' settings, and plans that cannot be cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from networks import Chain, ConvNorm, enliven, keep_every_other
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask


def test_layers_know_their_new_widths() -> None:
    network = enliven(
        Chain(
            lambda x, a, g, t: t(g(a(x))),
            out=6,
            a=ConvNorm(8, 12, 3),
            g=ConvNorm(12, 24, 3, groups=12),
            t=nn.ConvTranspose2d(24, 6, 2, 2),
        )
    )
    graph = trace(network)
    small = cut(network, graph, keep_every_other(graph))
    assert (small.stem.conv.in_channels, small.stem.conv.out_channels, small.stem.bn.num_features) == (3, 4, 4)
    grouped, transposed = small.layers["g"].conv, small.layers["t"]
    assert (grouped.in_channels, grouped.out_channels, grouped.groups) == (6, 12, 6)
    assert (transposed.in_channels, transposed.out_channels, transposed.groups) == (12, 3, 1)
    assert (small.last.in_channels, small.last.out_channels) == (3, 4)


def test_one_channel_layers() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=1)).eval()
    graph = trace(detector)
    keep = np.zeros(graph.units, dtype=bool)
    keep[[space.units[0] for space in graph.spaces]] = True
    small = cut(detector, graph, Plan.of(graph, keep, 64))
    assert min(m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)) == 1
    again = trace(small)
    assert again.units == len(graph.spaces)
    assert [x.shape for x in small(torch.zeros(1, 3, 64, 64))] == [x.shape for x in detector(torch.zeros(1, 3, 64, 64))]


def test_everything_else_comes_along() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=2), {0: "a", 1: "b"})
    detector.head.anchors.mul_(1.5)
    detector.model[0].conv.weight.requires_grad_(False)
    detector.model[0].bn.num_batches_tracked.fill_(17)
    graph = trace(detector)
    small = cut(detector, graph, keep_every_other(graph))
    assert small.names == {0: "a", 1: "b"} and small.strides == detector.strides and small.training
    assert torch.equal(small.head.anchors, detector.head.anchors)
    assert not small.model[0].conv.weight.requires_grad and small.model[1].conv.weight.requires_grad
    assert small.model[0].bn.num_batches_tracked == 17
    assert torch.equal(small.model[0].conv.weight, detector.model[0].conv.weight[::2])
    assert torch.equal(small.model[1].conv.weight, detector.model[1].conv.weight[::2, ::2])


def test_half_precision_is_kept() -> None:
    network = enliven(Chain(lambda x: x)).to(torch.bfloat16)
    graph = trace(network)
    assert cut(network, graph, keep_every_other(graph)).stem.conv.weight.dtype == torch.bfloat16


def test_plan_that_empties_a_layer() -> None:
    network = Chain(lambda x: x)
    graph = trace(network)
    with pytest.raises(UserError, match=r"removes all channels of stem\.conv"):
        cut(network, graph, Plan.of(graph, np.zeros(graph.units, dtype=bool), 64))


def test_mask_silences_rows_and_columns() -> None:
    network = enliven(Chain(lambda x, a: a(x), out=6, a=ConvNorm(8, 6, 3)))
    graph = trace(network)
    silent = mask(network, graph, keep_every_other(graph))
    assert silent.stem.conv.weight[1::2].abs().max() == 0 and silent.stem.conv.weight[::2].abs().min() > 0
    assert silent.stem.bn.weight[1::2].abs().max() == 0 and silent.stem.bn.bias[1::2].abs().max() == 0
    assert silent.layers["a"].conv.weight[:, 1::2].abs().max() == 0
    assert torch.equal(silent.stem.bn.running_var, network.stem.bn.running_var)
