"""Attention whose code takes a width from what it reads: an equal part of every head goes, not whole heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from networks import Chain, ConvNorm, keep_every_other
from secateur.pruning.graph import trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.surgery import cut, mask


def agree(network: nn.Module, image: Tensor) -> nn.Module:
    """Cut equals mask in both modes and differs from the dense network."""
    graph = trace(network)
    plan = keep_every_other(graph)
    small, silent = cut(network, graph, plan), mask(network, graph, plan)
    for training in (False, True):
        with torch.no_grad():
            a, b, dense = (net.double().train(training)(image.double()) for net in (small, silent, network))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(1.0, float(b.abs().max())))
        assert (b - dense).abs().max() > 1e-4, "the network is not lively"
    network.float().eval()
    assert plan.after.parameters == sum(parameter.numel() for parameter in small.parameters())
    return small


class Positions(nn.Module):
    """Attention over places; the heads are joined at the width of the input, and a depthwise layer reads the values."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.key_dim = heads, width // heads, width // heads // 2
        self.scale = self.key_dim**-0.5
        self.qkv = nn.Conv2d(width, width + 2 * heads * self.key_dim, 1)
        self.proj, self.places = ConvNorm(width, width), nn.Conv2d(width, width, 3, 1, 1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        parts = self.qkv(x).view(batch, self.num_heads, 2 * self.key_dim + self.head_dim, height * breadth)
        q, k, v = parts.split([self.key_dim, self.key_dim, self.head_dim], 2)
        weights = ((q * self.scale).transpose(-2, -1) @ k).softmax(-1)
        joined = (v @ weights.transpose(-2, -1)).view(batch, width, height, breadth)
        return self.proj(joined + self.places(v.reshape(batch, width, height, breadth)))


class Residual(nn.Module):
    """The block with a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.last = ConvNorm(3, 24, 3), Positions(), nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.stem(x), 8)
        return self.last(x + self.block(x))


def test_an_equal_part_of_every_head_goes_with_what_the_block_reads() -> None:
    network = lively(Residual())
    graph = trace(network)
    assert {entry.layer for entry in graph.frozen} == {"last"}
    # 8 places of the values, each with its channel of the residual sum in every head; 4 pairs of query and key.
    assert sorted(len(space.units) for space in graph.spaces) == [4, 8]
    small = agree(network, torch.rand(2, 3, 64, 64)).block
    assert (small.num_heads, small.head_dim, small.key_dim) == (3, 4, 2)
    assert small.qkv.weight.shape[:2] == (3 * (4 + 2 * 2), 3 * 4) and small.scale == network.block.scale


class NonLocal(nn.Module):
    """Places are compared by the products of two maps, summed over their channels."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second, self.third = nn.Conv2d(8, 10, 1), nn.Conv2d(8, 10, 1), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = (self.activation(layer(x)).flatten(2) for layer in (self.first, self.second, self.third))
        return (third @ (first.transpose(1, 2) @ second / 16).transpose(1, 2)).unflatten(2, x.shape[2:])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid])
def test_maps_that_are_multiplied_and_summed_lose_the_same_channels(activation: Callable[[], nn.Module]) -> None:
    """Where a silent channel is not zero, as behind a sigmoid, the sum would count it: nothing goes."""
    network = lively(Chain(lambda x, a: a(nn.functional.max_pool2d(x, 8)), out=6, a=NonLocal(activation())))
    graph = trace(network)
    spaces = {space.layers for space in graph.spaces}
    pair = ("layers.a.first", "layers.a.second")
    assert ("stem.conv",) in spaces and (pair in spaces) == (activation is nn.ReLU)
    if activation is nn.Sigmoid:
        assert "matmul in NonLocal, which sums over channels" in str(graph.frozen)
    agree(network, torch.rand(2, 3, 64, 64))


def test_modules_that_are_called_out_of_a_slice_have_their_own_names() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.inner = 6, ConvNorm(6, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            a, b = x.split((self.c, self.c), 1)
            return torch.cat([a, self.inner(b)], 1)

    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(ConvNorm(3, 12), Halves(), nn.Conv2d(12, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            for module in self.model[:-1]:
                x = module(x)
            return self.model[-1](x)

    network = lively(Sliced())
    assert [number.module for number in trace(network).numbers] == ["model.1"]
    assert agree(network, torch.rand(2, 3, 64, 64)).model[1].c == 3
