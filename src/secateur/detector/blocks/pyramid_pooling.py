"""Spatial pyramid pooling (SPP, arXiv:1406.4729): max pools of several sizes joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.detector.blocks import BLOCKS, BlockKind, chained
from secateur.detector.blocks.convolutions import Conv
from secateur.detector.blocks.cross_stage import C3


class SPP(nn.Module):
    """Spatial pyramid pooling: max pools of several sizes side by side."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13), *, act: str = "SiLU") -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1, 1, act=act)
        self.m = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling as three chained pools of one size: same result as SPP, less work."""

    def __init__(self, c1: int, c2: int, k: int = 5, *, act: str = "SiLU") -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(hidden * 4, c2, 1, 1, act=act)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class C3SPP(C3):
    """C3 with spatial pyramid pooling on its first path."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Sequence[int] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        act: str = "SiLU",
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, act=act)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, k, act=act)

    def inner(self, hidden: int, n: int, shortcut: bool, g: int, act: str) -> nn.Module:
        return nn.Identity()  # its place; the pooling needs the kernel sizes and is set by the constructor


BLOCKS.register("SPP")(BlockKind(chained(SPP), wide=True))
BLOCKS.register("SPPF")(BlockKind(chained(SPPF), wide=True))
BLOCKS.register("C3SPP")(BlockKind(chained(C3SPP), wide=True))
