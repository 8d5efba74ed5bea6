"""Residual blocks of two convolutions (Darknet, arXiv:1804.02767), which stand in chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from secateur.detector.blocks import BLOCKS, BlockKind, Link, chained, with_argument
from secateur.detector.blocks.convolutions import Conv
from secateur.detector.formats.records import Record


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution, with a residual sum where it was asked for and the widths agree."""

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5, *, act: str = "SiLU"
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(hidden, c2, 3, 1, g=g, act=act)
        self.add = bool(shortcut) and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class CrossConv(nn.Module):
    """A k x k convolution as 1 x k then k x 1, with an optional residual sum."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        g: int = 1,
        e: float = 1.0,
        shortcut: bool = False,
        *,
        act: str = "SiLU",
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s), act=act)
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g, act=act)
        self.add = bool(shortcut) and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H / s, W / s]."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


def read_shortcut(args: tuple[Any, ...], layer: Record, members: Sequence[Record]) -> tuple[Any, ...]:
    """The second argument, which asks for residual sums, as the bottlenecks of a YOLOv5 file have it."""
    adds = {member.get("add") for member in members if isinstance(member.get("add"), bool)}
    return with_argument(args, 1, adds.pop(), (True,)) if len(adds) == 1 else args


def adds_input(block: Bottleneck | CrossConv) -> bool:
    """Whether the residual sum is made."""
    return block.add


BLOCKS.register("Bottleneck")(
    BlockKind(
        chained(Bottleneck),
        wide=True,
        link=Link(Bottleneck, adds_input, ends=("cv2",)),
        read=read_shortcut,
        compared={Bottleneck: ("add",)},
    )
)
BLOCKS.register("CrossConv")(
    BlockKind(
        chained(CrossConv),
        wide=True,
        link=Link(CrossConv, adds_input, ends=("cv2",)),
        compared={CrossConv: ("add",)},
    )
)
