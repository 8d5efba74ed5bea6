"""Residual blocks of two convolutions (Darknet, arXiv:1804.02767), used in chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Link, chained, with_argument
from secateur.families.yolov5.blocks.convolutions import Conv
from secateur.networks.formats.records import Record


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, with a residual sum if requested and the widths match."""

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
    """The second argument, which enables residual sums, as set in the bottlenecks of a YOLOv5 file.

    It becomes a list if the bottlenecks differ: a fork that cuts widths omits the sum where widths no longer match.
    """
    return _with_shortcuts(args, 1, members, (True,))


def _read_last(args: tuple[Any, ...], layer: Record, members: Sequence[Record]) -> tuple[Any, ...]:
    """The same for a `CrossConv`, where it is the sixth argument."""
    return _with_shortcuts(args, 5, members, (3, 1, 1, 1.0, False))


def _with_shortcuts(
    args: tuple[Any, ...], place: int, members: Sequence[Record], defaults: tuple[Any, ...]
) -> tuple[Any, ...]:
    adds = tuple(member.get("add") for member in members)
    if not adds or not all(isinstance(add, bool) for add in adds):
        return args
    return with_argument(args, place, adds[0] if len(set(adds)) == 1 else adds, defaults)


def adds_input(block: Bottleneck | CrossConv) -> bool:
    """Whether the block has a residual sum."""
    return block.add


BLOCKS.register("Bottleneck")(
    BlockKind(
        chained(Bottleneck, shortcuts=1),
        wide=True,
        link=Link(Bottleneck, adds_input, ends=("cv2",)),
        shortcuts=1,
        read=read_shortcut,
    )
)
BLOCKS.register("CrossConv")(
    BlockKind(
        chained(CrossConv, shortcuts=5),
        wide=True,
        link=Link(CrossConv, adds_input, ends=("cv2",)),
        shortcuts=5,
        read=_read_last,
    )
)
