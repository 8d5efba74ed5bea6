"""Cross-stage blocks (CSPNet, arXiv:1911.11929): a chain of bottlenecks in parallel with a plain path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.families.yolov5.activations import make_activation, recorded_activation
from secateur.families.yolov5.blocks import BLOCKS, BlockKind, one_each, repeated, with_argument
from secateur.families.yolov5.blocks.bottlenecks import Bottleneck, CrossConv, read_shortcut
from secateur.families.yolov5.blocks.convolutions import Conv
from secateur.networks.formats.records import Record


class C3(nn.Module):
    """Cross-stage block: a chain of bottlenecks in parallel with a 1x1 convolution, joined by a third 1x1
    convolution."""

    m: nn.Module

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool | Sequence[bool] = True,
        g: int = 1,
        e: float = 0.5,
        *,
        act: str = "SiLU",
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(c1, hidden, 1, 1, act=act)
        self.cv3 = Conv(2 * hidden, c2, 1, act=act)
        self.m = self.inner(hidden, n, shortcut, g, act)

    def inner(self, hidden: int, n: int, shortcut: bool | Sequence[bool], g: int, act: str) -> nn.Module:
        """The module on the first path; variants of the block override only this."""
        return nn.Sequential(*(Bottleneck(hidden, hidden, add, g, e=1.0, act=act) for add in one_each(shortcut, n)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3x(C3):
    """C3 with cross convolutions."""

    def inner(self, hidden: int, n: int, shortcut: bool | Sequence[bool], g: int, act: str) -> nn.Module:
        return nn.Sequential(*(CrossConv(hidden, hidden, 3, 1, g, 1.0, add, act=act) for add in one_each(shortcut, n)))


class BottleneckCSP(nn.Module):
    """The cross-stage block of the first releases: one batch norm over both joined paths.

    `csp_act` is the activation after that norm; early releases used a different one there.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool | Sequence[bool] = True,
        g: int = 1,
        e: float = 0.5,
        csp_act: str = "SiLU",
        *,
        act: str = "SiLU",
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = nn.Conv2d(c1, hidden, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1, act=act)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = make_activation(csp_act)
        shortcuts = one_each(shortcut, n)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, add, g, e=1.0, act=act) for add in shortcuts))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(joined)))


def _read_old(args: tuple[Any, ...], layer: Record, members: Sequence[Record]) -> tuple[Any, ...]:
    """Shortcuts, and the activation after the joint norm."""
    args = read_shortcut(args, layer, members)
    return with_argument(args, 4, recorded_activation(layer.get("act")), (True, 1, 0.5, "SiLU"))


BLOCKS.register("C3")(BlockKind(repeated(C3), wide=True, inner="m", shortcuts=1, read=read_shortcut))
BLOCKS.register("C3x")(BlockKind(repeated(C3x), wide=True, inner="m", shortcuts=1, read=read_shortcut))
BLOCKS.register("BottleneckCSP")(BlockKind(repeated(BottleneckCSP), wide=True, inner="m", shortcuts=1, read=_read_old))
