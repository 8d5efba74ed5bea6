"""The convolutional blocks of the YOLO family, with the attribute names that published checkpoints use.

No forward pass knows a width: every width lives in the shape of a tensor, so any layer can be narrowed. The blocks
follow CSPNet (arXiv:1911.11929), SPP (arXiv:1406.4729) and Darknet (arXiv:1804.02767).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.detector.activations import make_activation

Size = int | tuple[int, int]


def same_padding(kernel: Size, dilation: int = 1) -> Size:
    """Padding that keeps the size at stride 1 (for odd kernels)."""
    if isinstance(kernel, int):
        return (dilation * (kernel - 1) + 1) // 2
    return (dilation * (kernel[0] - 1) + 1) // 2, (dilation * (kernel[1] - 1) + 1) // 2


class Conv(nn.Module):
    """Convolution, batch norm, activation; after folding, `bn` is an identity and the convolution has a bias."""

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
    """Convolution with as many groups as both widths allow (depthwise when they are equal)."""

    def __init__(self, c1: int, c2: int, k: Size = 1, s: Size = 1, d: int = 1, *, act: str = "SiLU") -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution with as many groups as both widths allow."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0) -> None:
        super().__init__(c1, c2, k, s, p1, p2, groups=math.gcd(c1, c2))


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


class C3(nn.Module):
    """Cross-stage block: a chain of bottlenecks beside a plain 1x1 path, joined by a third 1x1 convolution."""

    m: nn.Module

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
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

    def inner(self, hidden: int, n: int, shortcut: bool, g: int, act: str) -> nn.Module:
        """What stands on the first path; variants of the block differ only here."""
        return nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0, act=act) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3x(C3):
    """C3 with cross convolutions."""

    def inner(self, hidden: int, n: int, shortcut: bool, g: int, act: str) -> nn.Module:
        return nn.Sequential(*(CrossConv(hidden, hidden, 3, 1, g, 1.0, shortcut, act=act) for _ in range(n)))


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


class BottleneckCSP(nn.Module):
    """The cross-stage block of the first releases: one batch norm over both joined paths.

    `csp_act` is the activation after that norm; early releases used another one there than in their convolutions.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
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
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0, act=act) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(joined)))


class Focus(nn.Module):
    """Moves every second row and column into channels, then convolves."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, *, act: str = "SiLU"
    ) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H / 2, W / 2]."""
        quarters = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.conv(torch.cat(quarters, 1))


class Concat(nn.Module):
    """Joins several inputs along one dimension (channels, unless the YAML says otherwise)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """[B, c_i, H, W] each -> [B, sum of c_i, H, W]."""
        return torch.cat(inputs, self.d)
