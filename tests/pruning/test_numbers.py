"""Numbers that a network's code makes of its widths: where they do not follow a cut, nothing goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import Chain, keep_every_other
from secateur.pruning.graph import trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.surgery import cut, mask


class Pool(nn.Module):
    """Keeps an integer that is the width of a half of its channels by chance."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return F.avg_pool2d(a * b, self.side)


class Outside(nn.Module):
    """Calls a function with the tensors of a layer, so that the layer's own numbers are not read."""

    def __init__(self, layer: nn.Module, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.layer)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    last = x.permute(0, 2, 3, 1)
    return F.layer_norm(last, norm.normalized_shape, norm.weight, norm.bias).permute(0, 3, 1, 2)  # type: ignore[arg-type]


def grouped(x: Tensor, conv: nn.Module) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, 1, 1, 1, 8)


STUCK: dict[str, tuple[Callable[[], Chain], str]] = {
    "divided by the width": (lambda: Chain(lambda x: x / x.shape[1]), "div in Chain"),
    "scaled by its root": (lambda: Chain(lambda x: x * x.shape[1] ** -0.5), "mul in Chain"),
    "slope": (lambda: Chain(lambda x: F.leaky_relu(x, 1 / x.shape[1])), "leaky_relu in Chain"),
    "side of a pool": (lambda: Chain(lambda x, a: a(x), out=4, a=Pool(4)), "chunk in Pool"),
    "layer norm": (lambda: Chain(lambda x, a: a(x), a=Outside(nn.LayerNorm(8), normed)), "layer_norm in Outside"),
    "group norm": (
        lambda: Chain(
            lambda x, a: a(x), a=Outside(nn.GroupNorm(4, 8), lambda x, n: F.group_norm(x, 4, n.weight, n.bias))
        ),
        "group_norm in Outside",
    ),
    "grouped convolution": (
        lambda: Chain(lambda x, a: a(x), a=Outside(nn.Conv2d(8, 8, 3, groups=8), grouped)),
        "conv2d in Outside",
    ),
    "expanded": (lambda: Chain(lambda x: x * x.mean((2, 3), True).expand(1, 8, 64, 64)), "expand in Chain"),
}


@pytest.mark.parametrize("case", STUCK)
def test_channels_stay_where_a_number_does_not_follow(case: str) -> None:
    build, operator = STUCK[case]
    graph = trace(lively(build()))
    frozen = {entry.layer: entry for entry in graph.frozen}["stem.conv"]
    assert graph.units == 0 and frozen.channels == frozen.total == 8
    assert frozen.by == f"{operator}, whose sizes are numbers in the network's code"


def test_a_constant_with_an_entry_for_each_channel_freezes_them() -> None:
    graph = trace(lively(Chain(lambda x: x * torch.ones(1, 8, 1, 1).expand_as(x))))
    assert graph.units == 0 and "expand_as in Chain" in str(graph.frozen)


FREE: dict[str, tuple[Callable[[], Chain], int]] = {
    "a number of that size which does not depend on the width": (lambda: Chain(lambda x: x / 8), 8),
    "an integer of another size": (lambda: Chain(lambda x, a: a(x), out=4, a=Pool(2)), 4),
    "one group for all channels": (
        lambda: Chain(
            lambda x, a: a(x), a=Outside(nn.Conv2d(8, 8, 3), lambda x, c: F.conv2d(x, c.weight, c.bias, 1, 1))
        ),
        16,
    ),
    "one entry for all channels": (lambda: Chain(lambda x: x * torch.full((1, 1, 1, 1), 3.0).expand_as(x)), 8),
}


@pytest.mark.parametrize("case", FREE)
def test_channels_go_where_it_does(case: str) -> None:
    build, units = FREE[case]
    network = lively(build())
    graph = trace(network)
    assert graph.units == units
    plan, image = keep_every_other(graph), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        small, silent = cut(network, graph, plan)(image), mask(network, graph, plan)(image)
    torch.testing.assert_close(small, silent, rtol=0, atol=1e-5 * max(1.0, float(silent.abs().max())))
    assert (silent - network(image)).abs().max() > 1e-4, "the network is not lively"
