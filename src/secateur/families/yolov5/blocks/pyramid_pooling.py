"""Spatial pyramid pooling (SPP, arXiv:1406.4729): concatenated max pools of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Reader, chained, with_argument
from secateur.families.yolov5.blocks.convolutions import Conv
from secateur.families.yolov5.blocks.cross_stage import C3
from secateur.networks.formats.records import Record


class SPP(nn.Module):
    """Spatial pyramid pooling: parallel max pools of several sizes."""

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
    """Spatial pyramid pooling as three chained pools of one size: same result as SPP, fewer operations."""

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
        shortcut: bool | Sequence[bool] = True,
        g: int = 1,
        e: float = 0.5,
        *,
        act: str = "SiLU",
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, act=act)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, k, act=act)

    def inner(self, hidden: int, n: int, shortcut: bool | Sequence[bool], g: int, act: str) -> nn.Module:
        return nn.Identity()  # placeholder; the constructor sets the pooling, which needs the kernel sizes


def _reads_sizes(default: int | tuple[int, ...], inner: str = "") -> Reader:
    """Corrects the second argument, the sizes of the pools; `inner` is the name of the block that contains them."""

    def read(args: tuple[Any, ...], layer: Record, members: Sequence[Record]) -> tuple[Any, ...]:
        holders = [member.modules().get(inner) if inner else member for member in members]
        sizes = {None if holder is None else _sizes(holder) for holder in holders}
        size = sizes.pop() if len(sizes) == 1 else None
        return args if size is None else with_argument(args, 1, size, (default,))

    return read


def _sizes(block: Record) -> int | tuple[int, ...] | None:
    """Side of the pool, or of each of several pools; None for other modules."""
    pools = block.modules().get("m")
    if pools is None or pools.kind.endswith(".MaxPool2d"):
        return None if pools is None else _side(pools)
    sides = [_side(pool) for pool in pools.modules().values()]
    return tuple(side for side in sides if side is not None) if sides and None not in sides else None


def _side(pool: Record) -> int | None:
    size = pool.get("kernel_size")
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    return size if isinstance(size, int) and size > 0 else None


BLOCKS.register("SPP")(BlockKind(chained(SPP), wide=True, read=_reads_sizes((5, 9, 13))))
BLOCKS.register("SPPF")(BlockKind(chained(SPPF), wide=True, read=_reads_sizes(5)))
BLOCKS.register("C3SPP")(BlockKind(chained(C3SPP), wide=True, read=_reads_sizes((5, 9, 13), "m")))
