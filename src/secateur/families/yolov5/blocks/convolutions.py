"""Convolutions with batch norm and activation, and variants.

No forward pass contains a width: all widths are shapes of tensors, so any layer can be narrowed. Attribute names are
those of published checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from secateur.families.yolov5.activations import make_activation
from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Site, chained

Size = int | tuple[int, int]


def same_padding(kernel: Size, dilation: int = 1) -> Size:
    """Padding that keeps the size at stride 1 (for odd kernels)."""
    if isinstance(kernel, int):
        return (dilation * (kernel - 1) + 1) // 2
    return (dilation * (kernel[0] - 1) + 1) // 2, (dilation * (kernel[1] - 1) + 1) // 2


class Conv(nn.Module):
    """Convolution, batch norm and activation; after fusing, `bn` is an identity and the convolution has a bias."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Size = 1,
        s: Size = 1,
        p: Size | None = None,
        g: int = 1,
        d: int = 1,
        *,
        act: str = "SiLU",
    ) -> None:
        super().__init__()
        padding = same_padding(k, d) if p is None else p
        self.conv = nn.Conv2d(c1, c2, k, s, padding, groups=g, dilation=d, bias=False)
        self.bn: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(c2)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H / s, W / s]."""
        return self.act(self.bn(self.conv(x)))


class DWConv(Conv):
    """Convolution with as many groups as both widths allow (depthwise if they are equal)."""

    def __init__(self, c1: int, c2: int, k: Size = 1, s: Size = 1, d: int = 1, *, act: str = "SiLU") -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution with as many groups as both widths allow."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0) -> None:
        super().__init__(c1, c2, k, s, p1, p2, groups=math.gcd(c1, c2))


class Focus(nn.Module):
    """Moves every second row and column into channels, then applies a convolution."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, *, act: str = "SiLU"
    ) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H / 2, W / 2]."""
        quarters = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.conv(torch.cat(quarters, 1))


def _conv(site: Site) -> tuple[nn.Module, int]:
    """Conv, whose last optional argument disables or replaces its activation."""
    args, activation = site.args, site.activation
    if len(args) == 7:
        last, args = args[6], args[:6]
        activation = {True: activation, False: "Identity"}[last] if isinstance(last, bool) else str(last)
    return chained(Conv)(replace(site, args=args, activation=activation))


BLOCKS.register("Conv")(BlockKind(_conv, wide=True))
BLOCKS.register("DWConv")(BlockKind(chained(DWConv), wide=True))
BLOCKS.register("DWConvTranspose2d")(BlockKind(chained(DWConvTranspose2d, activation=False), wide=True))
BLOCKS.register("Focus")(BlockKind(chained(Focus), wide=True))
