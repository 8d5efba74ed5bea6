"""Ghost blocks (arXiv:1911.11907): a convolution computes half of the channels, cheap operations derive the other
half."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Link, chained, repeated
from secateur.families.yolov5.blocks.convolutions import Conv, DWConv
from secateur.families.yolov5.blocks.cross_stage import C3


class GhostConv(nn.Module):
    """A convolution to half of the width, and a 5x5 depthwise convolution that computes the other half from its
    output."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, *, act: str = "SiLU") -> None:
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, None, g, act=act)
        self.cv2 = Conv(half, half, 5, 1, None, half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H / s, W / s]."""
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    """Two ghost convolutions with a residual sum; at stride 2 both paths go through a depthwise convolution."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, *, act: str = "SiLU") -> None:
        super().__init__()
        hidden = c2 // 2
        self.conv = nn.Sequential(
            GhostConv(c1, hidden, 1, 1, act=act),
            DWConv(hidden, hidden, k, s, act="Identity") if s == 2 else nn.Identity(),
            GhostConv(hidden, c2, 1, 1, act="Identity"),
        )
        self.shortcut: nn.Module = nn.Identity()
        if s == 2:
            self.shortcut = nn.Sequential(DWConv(c1, c1, k, s, act="Identity"), Conv(c1, c2, 1, 1, act="Identity"))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H / s, W / s]."""
        return self.conv(x) + self.shortcut(x)


class C3Ghost(C3):
    """C3 with ghost bottlenecks."""

    def inner(self, hidden: int, n: int, shortcut: bool | Sequence[bool], g: int, act: str) -> nn.Module:
        return nn.Sequential(*(GhostBottleneck(hidden, hidden, act=act) for _ in range(n)))


def _adds_input(block: GhostBottleneck) -> bool:
    return isinstance(block.shortcut, nn.Identity)


BLOCKS.register("GhostConv")(BlockKind(chained(GhostConv), wide=True))
BLOCKS.register("GhostBottleneck")(
    BlockKind(
        chained(GhostBottleneck),
        wide=True,
        link=Link(GhostBottleneck, _adds_input, ends=("conv.2.cv1", "conv.2.cv2")),
    )
)
BLOCKS.register("C3Ghost")(BlockKind(repeated(C3Ghost), wide=True, inner="m"))
