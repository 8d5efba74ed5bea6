"""Each operator: how many units it leaves, and that a cut through it changes nothing that a mask does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import Chain, ConvNorm, enliven, keep_every_other
from secateur.pruning.graph import trace
from secateur.pruning.surgery import cut, mask

EIGHT = torch.zeros(1, 8, 1, 1)


def squeeze_excite(x: Tensor, down: nn.Module, up: nn.Module) -> Tensor:
    return x * torch.sigmoid(up(F.silu(down(F.adaptive_avg_pool2d(x, 1)))))


# name -> network, units that remain prunable
CASES: dict[str, tuple[Callable[[], Chain], int]] = {
    "activations": (lambda: Chain(lambda x: F.hardswish(F.leaky_relu(F.relu6(F.mish(x)), 0.1)) * 2.0 + 1.0), 8),
    "pooling": (lambda: Chain(lambda x: F.max_pool2d(F.avg_pool2d(x, 2), 5, 1, 2)), 8),
    "upsampling": (lambda: Chain(lambda x: F.interpolate(F.interpolate(x, scale_factor=2), scale_factor=2.0)), 8),
    "padding": (lambda: Chain(lambda x: F.pad(x, (0, 1, 0, 1))), 8),
    "channel padding": (lambda: Chain(lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)), out=10), 0),
    "spatial slices": (lambda: Chain(lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1), out=16), 8),
    "concatenated rows": (lambda: Chain(lambda x, a: torch.cat([x, a(x)], 2), a=ConvNorm(8, 8)), 8),
    "chunk": (lambda: Chain(lambda x: torch.cat([x.chunk(2, 1)[1], x], 1), out=12), 4),
    "split by number": (lambda: Chain(lambda x: torch.cat(list(x.split([2, 6], 1)), 1)), 0),
    "channel slice": (lambda: Chain(lambda x: x[:, :6], out=6), 0),
    "shuffle": (lambda: Chain(lambda x: x.view(1, 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)), 0),
    "softmax over channels": (lambda: Chain(lambda x: x.softmax(1)), 0),
    "residual": (lambda: Chain(lambda x, a, b: x + b(a(x)), a=ConvNorm(8, 6), b=ConvNorm(6, 8, 3)), 14),
    "in-place residual": (lambda: Chain(lambda x, a: x.add_(a(x)), a=ConvNorm(8, 8, 3)), 8),
    "sum after concatenation": (
        lambda: Chain(
            lambda x, a, b, c: torch.cat([a(x), b(x)], 1) + c(x),
            out=10,
            a=ConvNorm(8, 4),
            b=ConvNorm(8, 6),
            c=ConvNorm(8, 10),
        ),
        18,
    ),
    "depthwise": (lambda: Chain(lambda x, a: a(x), a=ConvNorm(8, 8, 3, groups=8)), 8),
    "depthwise, two per channel": (lambda: Chain(lambda x, a: a(x), out=16, a=ConvNorm(8, 16, 3, groups=8)), 8),
    "grouped": (lambda: Chain(lambda x, a: a(x), out=12, a=ConvNorm(8, 12, 3, groups=4)), 4),
    "transposed": (lambda: Chain(lambda x, a: a(x), out=6, a=nn.ConvTranspose2d(8, 6, 2, 2)), 14),
    "transposed grouped": (
        lambda: Chain(lambda x, a: a(x), out=12, a=nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4, bias=False)),
        4,
    ),
    "squeeze and excite": (lambda: Chain(squeeze_excite, down=nn.Conv2d(8, 2, 1), up=nn.Conv2d(2, 8, 1)), 10),
    "spatial attention": (lambda: Chain(lambda x, a: x * a(x).sigmoid(), a=nn.Conv2d(8, 1, 1)), 8),
    "global mean": (lambda: Chain(lambda x: x.mean((2, 3), keepdim=True)), 8),
    "channel mean": (lambda: Chain(lambda x: x - x.mean(1, keepdim=True)), 0),
    "constant per channel": (lambda: Chain(lambda x: x + EIGHT), 0),
    "shared convolution": (lambda: Chain(lambda x, a: a(a(x)) + x, a=nn.Conv2d(8, 8, 3, 1, 1)), 8),
    "norm over a concatenation": (
        lambda: Chain(
            lambda x, a, n: F.silu(n(torch.cat([a(x), x], 1))),
            out=14,
            a=nn.Conv2d(8, 6, 1, bias=False),
            n=nn.BatchNorm2d(14),
        ),
        14,
    ),
    "swapped dimensions": (lambda: Chain(lambda x: x.swapaxes(1, 3).swapdims(-1, 1)), 8),
    "moved dimensions": (lambda: Chain(lambda x: x.movedim((1, 2), (-1, 1)).moveaxis(-1, 1)), 8),
    "gated linear unit": (lambda: Chain(lambda x: F.glu(F.glu(x, 2), 1), out=4), 4),
    "pixels out of channels": (lambda: Chain(lambda x: F.pixel_shuffle(x, 2), out=2), 2),
    "channels out of pixels": (lambda: Chain(lambda x: F.pixel_unshuffle(x, 2), out=32), 8),
    "shuffled groups": (lambda: Chain(lambda x: F.channel_shuffle(x, 2)), 4),
    "a slope for every channel": (lambda: Chain(lambda x, a: a(x), a=nn.PReLU(8)), 8),
    "one slope": (lambda: Chain(lambda x, a: a(x), a=nn.PReLU()), 8),
    "comparisons": (lambda: Chain(lambda x: (x * (x > 0)).masked_fill((x <= -1) | (x == 2), -1.0)), 8),
    "deviations": (lambda: Chain(lambda x: x / (x.std((2, 3), keepdim=True) + x.var((2, 3), keepdim=True) + 1)), 8),
    "waves": (lambda: Chain(lambda x: x.sin() + x.cos() * x.sign() + x.erf()), 8),
    "expanded by minus one": (lambda: Chain(lambda x: x * x.mean((2, 3), True).expand(-1, -1, *x.shape[2:])), 8),
    "unary function of two inputs": (lambda: Chain(lambda x, a: torch.atan2(x, a(x)), a=ConvNorm(8, 8)), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_operator(case: str) -> None:
    build, units = CASES[case]
    network = enliven(build())
    graph = trace(network)
    assert graph.units == units
    plan = keep_every_other(graph)
    assert (plan.units_kept < units) == (units > 0)
    images = torch.rand(1, 3, 64, 64)
    small, silent = cut(network, graph, plan), mask(network, graph, plan)
    for training in (False, True):
        if case in ("squeeze and excite", "global mean") and training:
            images = torch.rand(8, 3, 64, 64)  # norms over single pixels need several images
        if case == "shuffle":
            images = images[:1]
        with torch.no_grad():
            a, b = small.train(training)(images), silent.train(training)(images)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    price = graph.price(plan.keep(graph), 64)
    assert price.parameters == sum(parameter.numel() for parameter in small.parameters())
