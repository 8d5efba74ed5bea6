"""Networks whose channels do not lie in dimension 1: linear layers, norms over channels, attention by whole heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from networks import Chain, ConvNorm, enliven, keep_every_other
from secateur.errors import UserError
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.importance import score
from secateur.pruning.plan import Plan
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut, mask


def unequal(graph: ChannelGraph) -> Plan:
    """Takes a different share out of every space, so that nothing fits by chance."""
    keep = np.ones(graph.units, dtype=bool)
    for number, space in enumerate(graph.spaces):
        keep[space.units[: max(1, len(space.units) * (1 + number % 3) // 5)]] = False
    return Plan.of(graph, keep)


def check(network: nn.Module, inputs: tuple[Any, ...], graph: ChannelGraph | None = None) -> nn.Module:
    """Cut equals mask for two plans, and the price is exact."""
    graph = graph or trace(network, *inputs)
    small = network
    for plan in (keep_every_other(graph), unequal(graph)):
        small, silent = cut(network, graph, plan), mask(network, graph, plan)
        with torch.no_grad():
            a, b, dense = small(*inputs), silent(*inputs), network(*inputs)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(1.0, float(b.abs().max())))
        assert (b - dense).abs().max() > 1e-4, "the network is not lively"
        assert plan.after.parameters == sum(parameter.numel() for parameter in small.parameters())
    return small


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """Self-attention with one linear layer for queries, keys and values, as most vision transformers write it."""

    def __init__(self, width: int = 24, heads: int = 4, fused: bool = True, inner: str = "attribute") -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused, self.inner = heads, width // heads, fused, inner
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        each = self.head_dim if self.inner == "attribute" else width // self.num_heads
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, each).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = ((q * each**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """One block before the last layer; the width between blocks cannot go, for its last sum is an output."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(24), nn.LayerNorm(24)
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 24))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_goes_by_whole_heads(fused: bool) -> None:
    network = lively(Transformer(Attention(fused=fused)))
    graph = trace(network, random(1, 7, 24))
    assert {space.layers: (len(space.units), space.widths) for space in graph.spaces} == {
        ("attention.qkv",): (4, (18,)),
        ("mlp.0",): (40, (1,)),
    }
    small = check(network, (random(1, 7, 24),), graph)
    assert small.attention.qkv.weight.shape == (3 * 6 * small.attention.num_heads, 24)


def test_heads_stay_where_the_code_computes_their_width_from_another() -> None:
    """The width of a head is that of the block by the number of heads: with fewer heads it would be larger."""
    network = lively(Transformer(Attention(inner="computed")))
    graph = trace(network, random(1, 7, 24))
    assert {space.layers for space in graph.spaces} == {("mlp.0",)}
    frozen = {entry.layer: entry for entry in graph.frozen}["attention.qkv"]
    assert frozen.channels == 72 and frozen.by == "reshape in Attention, whose sizes are numbers in the network's code"
    check(network, (random(1, 7, 24),), graph)


def test_layer_norm_is_over_the_channels_that_stay() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.depthwise = nn.Conv2d(3, 12, 4, 4), nn.Conv2d(12, 12, 3, 1, 1, groups=12)
            self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 20), nn.Linear(20, 12)
            self.scale = nn.Parameter(torch.rand(12, 1, 1))
            self.head = nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            x = x + self.scale * self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
            return self.head(x.mean((2, 3)))

    network = lively(Block())
    graph = trace(network, random(1, 3, 32, 32))
    assert graph.units == 12 + 20 and [entry.layer for entry in graph.frozen] == ["head"]
    small = check(network, (random(2, 3, 32, 32),), graph)
    assert small.norm.normalized_shape == (small.norm.weight.numel(),)
    assert small.scale.shape == (small.norm.weight.numel(), 1, 1)


def test_group_norm_goes_by_whole_groups() -> None:
    network = lively(Chain(lambda x, a, n: n(a(x)), out=12, a=nn.Conv2d(8, 12, 1), n=nn.GroupNorm(4, 12)))
    graph = trace(network)
    assert {space.layers: len(space.units) for space in graph.spaces} == {("stem.conv",): 8, ("layers.a",): 4}
    small = check(network, (random(1, 3, 64, 64),), graph)
    norm = small.layers["n"]
    assert norm.num_channels == 3 * norm.num_groups == small.layers["a"].out_channels


@pytest.mark.parametrize("side", [1, 2])
def test_flattened_channels_are_runs_of_columns(side: int) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(ConvNorm(3, 8, 3), nn.AdaptiveAvgPool2d(side), nn.Flatten())
            self.layers = nn.Sequential(nn.Linear(8 * side**2, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(self.body(x))

    network = enliven(Classifier())
    graph = trace(network)
    assert graph.units == 18
    small = check(network, (random(2, 3, 64, 64),), graph)
    assert small.layers[0].in_features == side**2 * small.body[0].conv.out_channels


class Halves(nn.Module):
    """Splits at a number that it keeps, as an exported C2f does."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.c, self.literal = 6, literal
        self.first, self.inner, self.last = ConvNorm(3, 12), ConvNorm(6, 6, 3), nn.Conv2d(18, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).split((6, 6) if self.literal else (self.c, self.c), 1)
        return self.last(torch.cat([a, b, b + self.inner(b)], 1))


def test_split_by_a_number_that_the_module_keeps() -> None:
    network = lively(Halves(literal=False))
    graph = trace(network)
    assert graph.units == 6 and [(number.module, number.attribute) for number in graph.numbers] == [("", "c")]
    small = check(network, (random(1, 3, 64, 64),), graph)
    assert small.c == small.inner.conv.in_channels == small.first.conv.out_channels // 2


def test_split_by_a_number_in_the_code_stays() -> None:
    graph = trace(lively(Halves(literal=True)))
    assert graph.units == 0 and "split_with_sizes in Halves, whose sizes are numbers in the network's code" in str(
        graph
    )


class Repeating(nn.Module):
    """A head that also gives what it reads, and takes a dtype from it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = ConvNorm(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = self.stem(x)
        steps = torch.arange(maps.shape[-1]).type_as(maps) + maps.new_zeros(1)
        return self.head(maps + torch.zeros_like(maps)) * steps, [maps]


def test_what_only_repeats_inputs_of_the_head_freezes_nothing() -> None:
    network = lively(Repeating())
    assert trace(network, random(1, 3, 16, 16)).units == 0
    graph = trace(network, random(1, 3, 16, 16), answers=lambda outputs: outputs[0])
    assert graph.units == 8
    plan = keep_every_other(graph)
    with torch.no_grad():
        small, silent = (act(network, graph, plan)(random(1, 3, 16, 16)) for act in (cut, mask))
    torch.testing.assert_close(small[0], silent[0], rtol=0, atol=1e-5)
    assert small[1][0].shape[1] == 4


class Scale(nn.Module):
    """Multiplies by a vector that it lays out for maps."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(1, -1, 1, 1)


def over_places(x: Tensor, v: nn.Module) -> Tensor:
    """Attention over places with the weights of a fixed pattern and values of one head."""
    places = x.flatten(2).transpose(1, 2)
    weights = torch.eye(places.shape[1]).roll(1, 0) + 0.5
    return (weights @ v(places)).transpose(1, 2).unflatten(2, x.shape[2:])


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "shuffled by a computed width": (
        lambda: Chain(lambda x: x.view(1, 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2)), 4,
    ),
    "a vector that is laid out for maps": (lambda: Chain(lambda x, a: a(x), a=Scale()), 8),
    "padded with the channels last": (
        lambda: Chain(lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1)).permute(0, 3, 1, 2)), 8,
    ),
    "halves by slices": (lambda: Chain(lambda x: x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :], out=4), 4),
    "expanded as": (lambda: Chain(lambda x: x.mean((2, 3), keepdim=True).expand_as(x) + x), 8),
    "product over places": (lambda: Chain(over_places, out=6, v=nn.Linear(8, 6)), 14),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_case(case: str) -> None:
    build, units = CASES[case]
    network = lively(build())
    graph = trace(network, random(1, 3, 16, 16))
    assert graph.units == units
    check(network, (random(1, 3, 16, 16),), graph)


def test_frozen_batch_norm_is_a_vector_for_every_channel() -> None:
    network = lively(torchvision.models.resnet18(num_classes=4, norm_layer=torchvision.ops.FrozenBatchNorm2d))
    graph = trace(network)
    assert [entry.layer for entry in graph.frozen] == ["fc"]
    check(network, (random(1, 3, 64, 64),), graph)


def test_scoring_reads_linear_layers_inside_windows() -> None:
    network = torchvision.models.swin_t(weights=None, num_classes=10)
    graph = trace(network, random(1, 3, 64, 64))
    assert all(".mlp.0" in layer for space in graph.spaces for layer in space.layers) and len(graph.spaces) == 12
    batches = [random(2, 3, 64, 64), random(1, 3, 64, 64)]
    statistics = collect(network, graph, batches, lambda net, batch: net(batch).square().sum())
    assert statistics.images == 3
    plan = allocate(graph, score("fisher", graph, statistics), Budget("params", 0.7))
    assert plan.after.parameters <= 0.7 * plan.before.parameters


def test_a_price_that_modules_do_not_tell_is_refused_at_another_size() -> None:
    """Swin pads windows inside a function: the rows of its layers there are not those of any module."""
    graph = trace(torchvision.models.swin_t(weights=None, num_classes=10), random(1, 3, 64, 64))
    assert graph.price().flops == graph.price(None, 64).flops > 0
    with pytest.raises(UserError, match="only available for the inputs that it was traced with"):
        graph.price(None, 128)


def test_a_transformer_is_priced_at_every_size_of_its_own() -> None:
    """Linear layers that are called as modules have the rows that these see."""

    class Columns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up, self.down = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 20), nn.Linear(20, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(F.gelu(self.up(self.stem(x).permute(0, 2, 3, 1))))

    graph = trace(Columns(), random(1, 3, 64, 64))
    for height, width in ((64, 64), (128, 64), (32, 256)):
        places = height * width // 16
        assert graph.price(None, (height, width)).flops == 2 * places * (12 * 48 + 20 * 12 + 12 * 20)
