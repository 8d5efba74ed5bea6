"""Absorption is exact where it says so, and batch norms learn the average statistics of the batches they see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import Chain, ConvNorm, enliven, keep_every_other
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.plan import Plan
from secateur.pruning.repair import absorb_offsets, reestimate_batchnorm_
from secateur.pruning.surgery import cut


def silence_gammas(network: nn.Module, graph: ChannelGraph, plan: Plan) -> None:
    """Sets gamma to 0, but not beta, on all channels that the plan removes: what ideal sparse training leaves."""
    gone = np.append(~plan.keep(graph), False)
    modules = dict(network.named_modules())
    with torch.no_grad():
        for layer, units in graph.norms.items():
            modules[layer].weight[torch.from_numpy(gone[units])] = 0.0


def residual() -> Chain:
    return enliven(  # type: ignore[return-value]
        Chain(
            lambda x, a, b, c, p: torch.cat([p(c(x + b(a(x)))), x], 1),
            out=14,
            a=ConvNorm(8, 8),
            b=ConvNorm(8, 8, 3, act=nn.LeakyReLU(0.1)),
            c=ConvNorm(8, 6, 3),
            p=nn.MaxPool2d(3, 1, 1),
        )
    )


def test_exact_inside_the_image() -> None:
    torch.manual_seed(1)
    network = residual()
    graph = trace(network)
    plan = keep_every_other(graph)
    silence_gammas(network, graph, plan)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        dense = network(images)
        bare = cut(network, graph, plan)(images)
        repaired = cut(absorb_offsets(network, graph, plan), graph, plan)(images)
    inside = (..., slice(6, -6), slice(6, -6))
    assert (dense - bare)[inside].abs().max() > 0.1
    torch.testing.assert_close(repaired[inside], dense[inside], rtol=0, atol=1e-5)
    assert (dense - repaired).abs().max() > 1e-3, "zero padding hides part of the constant at the border"


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny", "yolov5s-ghost"])
def test_exact_on_whole_detectors(name: str) -> None:
    """With replicated borders a constant is constant everywhere, so the whole output has to agree."""
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(name, nc=2))
    enliven(detector)
    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "replicate"
        elif isinstance(module, nn.ZeroPad2d):
            module.forward = nn.ReplicationPad2d(module.padding).forward  # type: ignore[method-assign]
    graph = trace(detector)
    plan = keep_every_other(graph)
    silence_gammas(detector, graph, plan)
    detector.double()
    images = torch.rand(1, 3, 64, 64).double()
    with torch.no_grad():
        dense = detector(images)
        repaired = cut(absorb_offsets(detector, graph, plan), graph, plan)(images)
        bare = cut(detector, graph, plan)(images)
    for expected, got, worse in zip(dense, repaired, bare, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-7 * max(1.0, expected.abs().max().item()))
        assert (worse - expected).abs().max() > 1e-2


def test_absorbing_changes_only_a_copy_and_nothing_without_cuts() -> None:
    network = residual()
    graph = trace(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    absorb_offsets(network, graph, keep_every_other(graph))
    same = absorb_offsets(network, graph, Plan.everything(graph))
    for state in (network.state_dict(), same.state_dict()):
        assert all(torch.equal(before[name], tensor) for name, tensor in state.items())


def test_reestimation_gives_the_average_over_batches() -> None:
    network = residual().train()
    network.stem.bn.momentum = 0.03
    counter = network.stem.bn.num_batches_tracked.clone()
    batches = [torch.rand(4, 3, 16, 16) for _ in range(5)]
    with torch.no_grad():
        maps = [network.stem.conv(batch) for batch in batches[:3]]
    mean = torch.stack([x.mean((0, 2, 3)) for x in maps]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in maps]).mean(0)
    weights = {name: parameter.clone() for name, parameter in network.named_parameters()}
    assert reestimate_batchnorm_(network, iter(batches), limit=3, share=1) == 3
    torch.testing.assert_close(network.stem.bn.running_mean, mean)
    torch.testing.assert_close(network.stem.bn.running_var, variance)
    assert network.training and network.stem.bn.momentum == 0.03
    assert torch.equal(network.stem.bn.num_batches_tracked, counter)
    assert all(torch.equal(weights[name], parameter) for name, parameter in network.named_parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_reestimation_keeps_dropout_off_and_needs_a_batch() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3)).eval()
    before = network[1].running_mean.clone()
    empty: list[Tensor] = []
    assert reestimate_batchnorm_(network, empty) == 0
    assert torch.equal(network[1].running_mean, before)
    images = torch.rand(4, 3, 8, 8)
    reestimate_batchnorm_(network, [images], share=1)
    torch.testing.assert_close(network[1].running_mean, images.mean((0, 2, 3)))


def test_reestimation_moves_by_its_share() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3)).eval()
    network[0].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    images = torch.rand(4, 3, 8, 8)
    reestimate_batchnorm_(network, [images], share=0.25)
    expected = 0.75 * torch.tensor([1.0, 2.0, 3.0]) + 0.25 * images.mean((0, 2, 3))
    torch.testing.assert_close(network[0].running_mean, expected)
    torch.testing.assert_close(network[0].running_var, 0.75 + 0.25 * images.var((0, 2, 3)))
