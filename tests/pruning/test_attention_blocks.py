"""Attention blocks that people add to their detectors (SE, CBAM, CoordAtt, ECA): traced and cut, none needs a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from networks import ConvNorm, enliven, keep_every_other
from secateur.pruning.graph import trace
from secateur.pruning.surgery import cut, mask


class SqueezeExcite(nn.Module):
    """arXiv:1709.01507, with linear layers as it was published."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        batch, width, _, _ = x.shape
        return x * self.fc(x.mean((2, 3))).view(batch, width, 1, 1)


class ConvolvedSqueezeExcite(nn.Module):
    """The same with 1x1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(self.pool(x)).relu()).sigmoid()


class ChannelAttention(nn.Module):
    """The first half of CBAM (arXiv:1807.06521): one small network for the means and the maxima of channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.average, self.maximum = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.f1, self.f2 = nn.Conv2d(width, width // 2, 1, bias=False), nn.Conv2d(width // 2, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means, maxima = (self.f2(self.f1(pool(x)).relu()) for pool in (self.average, self.maximum))
        return x * (means + maxima).sigmoid()


class CBAM(nn.Module):
    """Both halves: the second one weighs places by the mean and the maximum over the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels, self.places = ChannelAttention(width), nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.channels(x)
        return x * self.places(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)).sigmoid()


class CoordAtt(nn.Module):
    """arXiv:2103.02907: means of rows and of columns through one convolution, then one for each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows, self.columns = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.joint = ConvNorm(width, 8)
        self.of_rows, self.of_columns = nn.Conv2d(8, width, 1), nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, _, height, width = x.shape
        y = self.joint(torch.cat([self.rows(x), self.columns(x).permute(0, 1, 3, 2)], 2))
        rows, columns = torch.split(y, [height, width], 2)
        return x * self.of_rows(rows).sigmoid() * self.of_columns(columns.permute(0, 1, 3, 2)).sigmoid()


class ECA(nn.Module):
    """arXiv:1910.03151: a convolution over neighbouring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv = nn.AdaptiveAvgPool2d(1), nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.pool(x).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * y.sigmoid()


class Network(nn.Module):
    """A block between convolutions, with a way around it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.before, self.block = ConvNorm(3, 8, 3), ConvNorm(8, 16, 3), block
        self.after, self.last = ConvNorm(16, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.after(self.block(self.before(x))) + x)


# Of each what cannot lose channels, and by which operation: where channels are mixed by their places or averaged.
BLOCKS: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "SE": (lambda: SqueezeExcite(16), {}),
    "SE of convolutions": (lambda: ConvolvedSqueezeExcite(16), {}),
    "channel attention": (lambda: ChannelAttention(16), {}),
    "CBAM": (
        lambda: CBAM(16),
        {"before.conv": "mean in CBAM", "block.channels.f2": "mean in CBAM", "block.places": "mul in CBAM"},
    ),
    "CoordAtt": (lambda: CoordAtt(16), {}),
    "ECA": (ECA, {"before.conv": "conv1d in Conv1d", "block.conv": "conv1d in Conv1d"}),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_cut_beside_the_block_is_exact_and_what_is_frozen_is_named(name: str) -> None:
    build, frozen = BLOCKS[name]
    network = enliven(Network(build()))
    graph = trace(network)
    assert {entry.layer: entry.by for entry in graph.frozen} == {**frozen, "last": "the network's output"}
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    plan = keep_every_other(graph)
    small, silent = cut(network, graph, plan), mask(network, graph, plan)
    with torch.no_grad():
        torch.testing.assert_close(small(x), silent(x), rtol=0, atol=1e-5)
        assert (small(x) - network(x)).abs().max() > 1e-3
    assert plan.after.parameters == sum(parameter.numel() for parameter in small.parameters())
    assert plan.after.parameters < plan.before.parameters
