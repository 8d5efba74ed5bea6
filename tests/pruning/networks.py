"""Small networks for the tests of pruning, each with one feature that is easy to get wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from secateur.pruning.graph import ChannelGraph
from secateur.pruning.plan import Plan


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, groups: int = 1, act: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = act or nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Chain(nn.Module):
    """A stem, what `middle` makes of its 8 channels, and a plain convolution to 4 frozen outputs."""

    def __init__(self, middle: Callable[[Tensor], Tensor], out: int = 8, **layers: nn.Module) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, 3)
        self.layers = nn.ModuleDict(layers)
        self.middle = middle
        self.last = nn.Conv2d(out, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.stem(x), **self.layers))


def enliven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random norms and biases, eval mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
                module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval()


def keep_every_other(graph: ChannelGraph) -> Plan:
    """Removes units 1, 3, ... of every space that has more than one."""
    keep = np.ones(graph.units, dtype=bool)
    for space in graph.spaces:
        keep[space.units[1::2]] = False
    return Plan.of(graph, keep)
