"""A small network of stock's blocks, written by hand: what it computes follows from its layers, not from a YAML.

It has one block of each kind that stores something about itself. The classes are pickled under stock's names.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CONFIG: dict[str, Any] = {
    "nc": 2,
    "ch": 3,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[4, 5, 8, 9], [16, 20, 24, 30]],
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 3, "C3", [8]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 2, "Bottleneck", [16]],
        [-1, 2, "CrossConv", [16, 3, 1]],
        [-1, 2, "C3x", [16]],
        [-1, 2, "BottleneckCSP", [16]],
        [-1, 1, "SPP", [16, [3, 5]]],
    ],
    "head": [
        [-1, 1, "SPPF", [16, 5]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 1], 1, "Concat", [1]],
        [-1, 1, "nn.ZeroPad2d", [1]],
        [-1, 1, "Conv", [16, 3, 1, 0]],
        [-1, 1, "nn.MaxPool2d", [3, 2, 1]],
        [[12, 13], 1, "Detect", ["nc", "anchors"]],
    ],
}


class Conv(nn.Module):
    def __init__(self, c1: int, c2: int, k: Any = 1, s: Any = 1, p: Any = None) -> None:
        super().__init__()
        sides = (k, k) if isinstance(k, int) else k
        self.conv = nn.Conv2d(c1, c2, k, s, tuple(side // 2 for side in sides) if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act: nn.Module = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, c1: int, c2: int, hidden: int, add: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(c1, hidden), Conv(hidden, c2, 3), add

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class CrossConv(Bottleneck):
    def __init__(self, c: int, add: bool) -> None:
        super().__init__(c, c, c, add)
        self.cv1, self.cv2 = Conv(c, c, (1, 3)), Conv(c, c, (3, 1))


class C3(nn.Module):
    def __init__(self, c1: int, c2: int, chain: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3 = Conv(c1, c2 // 2), Conv(c1, c2 // 2), Conv(c2, c2)
        self.m = nn.Sequential(*chain)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3x(C3):
    pass


class BottleneckCSP(nn.Module):
    def __init__(self, c1: int, c2: int, chain: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cv1, self.cv4 = Conv(c1, c2 // 2), Conv(c2, c2)
        self.cv2, self.cv3 = nn.Conv2d(c1, c2 // 2, 1, bias=False), nn.Conv2d(c2 // 2, c2 // 2, 1, bias=False)
        self.bn, self.act, self.m = nn.BatchNorm2d(c2), nn.SiLU(), nn.Sequential(*chain)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv4(self.act(self.bn(torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1))))


class SPP(nn.Module):
    def __init__(self, c: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c // 2), Conv(c // 2 * (1 + len(sizes)), c)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return self.cv2(torch.cat([y, *(pool(y) for pool in self.m)], 1))


class SPPF(nn.Module):
    def __init__(self, c: int, size: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c // 2), Conv(c // 2 * 4, c)
        self.m = nn.MaxPool2d(size, 1, size // 2)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.cv1(x)]
        for _ in range(3):
            found.append(self.m(found[-1]))
        return self.cv2(torch.cat(found, 1))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.d = 1

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class Detect(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.nc, self.no, self.nl, self.na, self.inplace = 2, 7, 2, 2, True
        self.stride = torch.tensor([2.0, 4.0])
        anchors = torch.tensor(CONFIG["anchors"], dtype=torch.float32).view(2, 2, 2)
        self.register_buffer("anchors", anchors / self.stride.view(2, 1, 1))
        self.m = nn.ModuleList(nn.Conv2d(width, 14, 1) for width in widths)

    def forward(self, x: list[Tensor]) -> Tensor:
        rows = []
        for convolution, anchors, stride, level in zip(self.m, self.anchors, self.stride, x, strict=True):
            y = convolution(level)
            height, width = y.shape[2:]
            y = y.view(-1, 2, 7, height, width).permute(0, 1, 3, 4, 2).sigmoid()
            down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centre = (y[..., :2] * 2 - 0.5 + torch.stack((right, down), -1)) * stride
            size = (y[..., 2:4] * 2) ** 2 * anchors.view(2, 1, 1, 2) * stride
            rows.append(torch.cat((centre, size, y[..., 4:]), -1).flatten(1, 3))
        return torch.cat(rows, 1)


class DetectionModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = [
            Conv(3, 8, 3, 2),
            C3(8, 8, [Bottleneck(4, 4, 4, True) for _ in range(3)]),
            Conv(8, 16, 3, 2),
            nn.Sequential(*(Bottleneck(16, 16, 8, True) for _ in range(2))),
            nn.Sequential(*(CrossConv(16, False) for _ in range(2))),
            C3x(16, 16, [CrossConv(8, True) for _ in range(2)]),
            BottleneckCSP(16, 16, [Bottleneck(8, 8, 8, True) for _ in range(2)]),
            SPP(16, (3, 5)),
            SPPF(16, 5),
            nn.Upsample(None, 2, "nearest"),
            Concat(),
            nn.ZeroPad2d(1),
            Conv(24, 16, 3, 1, 0),
            nn.MaxPool2d(3, 2, 1),
            Detect((16, 16)),
        ]
        self.model = nn.Sequential(*blocks)
        for number, (block, row) in enumerate(zip(blocks, CONFIG["backbone"] + CONFIG["head"], strict=True)):
            block.i, block.f = number, row[0]
        self.yaml, self.names = copy.deepcopy(CONFIG), ["cat", "dog"]

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Any] = []
        for block in self.model:
            sources = block.f if isinstance(block.f, list) else [block.f]
            inputs = [outputs[source] if outputs else x for source in sources]
            outputs.append(block(inputs if isinstance(block.f, list) else inputs[0]))
        return outputs[-1]


def lively_network() -> DetectionModel:
    """Random weights and statistics, in eval mode, with the eps of stock's batch norms."""
    torch.manual_seed(0)
    return enlivened(DetectionModel())


def enlivened(network: DetectionModel) -> DetectionModel:
    """Every tensor drawn anew."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
            for tensor, low, high in (
                (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
        elif isinstance(module, nn.Conv2d):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.4)
    return network.eval()


def writer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[DetectionModel], Path]:
    """Writes a network as a `.pt` whose classes are called as stock's are."""
    common, yolo = types.ModuleType("models.common"), types.ModuleType("models.yolo")
    for kind in (Conv, Bottleneck, CrossConv, C3, C3x, BottleneckCSP, SPP, SPPF, Concat, Detect, DetectionModel):
        home = yolo if kind in (Detect, DetectionModel) else common
        setattr(home, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", home.__name__)
    for module in (types.ModuleType("models"), common, yolo):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(network: DetectionModel) -> Path:
        torch.save({"epoch": -1, "model": network, "ema": None}, folder / "stock.pt")
        return folder / "stock.pt"

    return write
