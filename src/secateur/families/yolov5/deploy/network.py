"""Detectors of this family prepared for export: norms folded, only widely supported operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.families.outputs import cast
from secateur.families.yolov5.blocks.convolutions import Conv, Focus
from secateur.families.yolov5.blocks.detect import Detect
from secateur.families.yolov5.model import Detector
from secateur.sizes import Sides


class Decoded(nn.Module):
    """Maps images [B, C, H, W] in 0..1 to decoded rows [B, N, 5 + nc], for images of any size.

    With `half`, everything except the decoding runs in fp16, which cannot represent pixel coordinates.
    """

    def __init__(self, network: Detector, half: bool = False) -> None:
        super().__init__()
        self.detector, self.dtype = _ready(network, half)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, 5 + nc]."""
        rows: Tensor = self.detector.predict(cast(images, self.dtype))
        return rows


class HeadMaps(nn.Module):
    """Maps images [B, C, H, W] in 0..1 to the outputs of the last convolutions: [B, na * (5 + nc), ny, nx] per
    level."""

    def __init__(self, network: Detector, half: bool = False) -> None:
        super().__init__()
        self.detector, self.dtype = _ready(network, half)
        self.detector.model[-1] = _Convolutions(self.detector.head)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> [B, na * (5 + nc), ny, nx] of each level."""
        return [y.float() for y in self.detector(cast(images, self.dtype))]


class FlatDecoded(nn.Module):
    """Like `Decoded` for one image size: position-dependent values are constants, and no tensor has five axes.

    Mobile runtimes do not support five axes, and all runtimes run fewer operators faster.
    """

    def __init__(self, network: Detector, size: Sides, half: bool = False) -> None:
        super().__init__()
        self.maps = HeadMaps(network, half)
        self.decoder = MapDecoder(network.head.anchors * _column(network.strides), network.strides, size)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, 5 + nc]."""
        return self.decoder(self.maps(images))


class MapDecoder(nn.Module):
    """Decodes the maps of a YOLOv5 head at one image size.

    Args:
        anchors: float [nl, na, 2], width and height in pixels.
        strides: pixels per cell of each level.
        size: height and width of the image.
    """

    offset: Tensor
    cell: Tensor
    anchor: Tensor

    def __init__(self, anchors: Tensor, strides: Sequence[float], size: Sides) -> None:
        super().__init__()
        self.na = anchors.shape[1]
        offsets, cells, boxes = [], [], []
        for level, stride in zip(anchors, strides, strict=True):
            ny, nx = int(size[0] // stride), int(size[1] // stride)
            lines, columns = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            corner = torch.stack((columns, lines), -1).view(1, ny * nx, 2).float() - 0.5
            offsets.append((corner * stride).expand(self.na, -1, -1).reshape(-1, 2))
            cells.append(torch.full((self.na * ny * nx, 1), 2 * float(stride)))
            boxes.append((4 * level.float())[:, None].expand(-1, ny * nx, -1).reshape(-1, 2))
        self.register_buffer("offset", torch.cat(offsets)[None])
        self.register_buffer("cell", torch.cat(cells)[None])
        self.register_buffer("anchor", torch.cat(boxes)[None])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, na * (5 + nc), ny, nx] per level -> rows [B, N, 5 + nc], float32."""
        parts = []
        for y in maps:
            batch, channels, ny, nx = y.shape
            parts.append(y.reshape(batch * self.na, channels // self.na, ny * nx).transpose(1, 2))
        flat = [part.reshape(-1, self.na * part.shape[1], part.shape[2]) for part in parts]
        p = torch.cat(flat, 1).sigmoid()
        xy = p[..., 0:2] * self.cell + self.offset
        wh = p[..., 2:4] * p[..., 2:4] * self.anchor
        return torch.cat((xy, wh, p[..., 4:]), -1)


class Parted(nn.Module):
    """Decoded rows in the form for suppression: corners [B, N, 4] in pixels and scores per class [B, N, nc]."""

    def __init__(self, decoded: nn.Module) -> None:
        super().__init__()
        self.decoded = decoded

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> corners, scores."""
        rows = self.decoded(images)
        half = rows[..., 2:4] / 2
        return torch.cat((rows[..., :2] - half, rows[..., :2] + half), -1), rows[..., 5:] * rows[..., 4:5]


class _Convolutions(Detect):
    """The last convolutions of a head without decoding; a subclass of the head, because tracing needs one."""

    def __init__(self, head: Detect) -> None:
        super().__init__(head.nc, head.anchors.flatten(1).tolist(), [1] * head.nl)
        self.strides, self.m = head.strides, head.m

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        return [convolution(x) for convolution, x in zip(self.m, inputs, strict=True)]


def _ready(detector: Detector, half: bool) -> tuple[Detector, torch.dtype]:
    """A fused copy, and its dtype."""
    fused, dtype = _without_focus(detector.fused()), torch.float16 if half else torch.float32
    return fused.to(dtype), dtype


def _without_focus(detector: Detector) -> Detector:
    """Replaces every `Focus` by an equivalent convolution, because ncnn does not support slices with a step."""
    for parent in list(detector.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Focus) and child.conv.conv.groups == 1:
                setattr(parent, name, _widened(child.conv))
    return detector


def _widened(block: Conv) -> Conv:
    """The convolution of a `Focus` applied to the image: kernel, stride and padding are doubled."""
    old = block.conv
    width, channels, height, length = old.weight.shape
    kernel, step = (2 * height, 2 * length), (2 * old.stride[0], 2 * old.stride[1])
    assert isinstance(old.padding, tuple)
    border = (2 * old.padding[0], 2 * old.padding[1])
    new = nn.Conv2d(channels // 4, width, kernel, step, border, bias=old.bias is not None)
    with torch.no_grad():
        for number, (line, column) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
            part = old.weight[:, number * channels // 4 : (number + 1) * channels // 4]
            new.weight[:, :, line::2, column::2] = part
    new.bias = old.bias
    block.conv = new
    return block


def _column(strides: Sequence[float]) -> Tensor:
    return torch.tensor(strides).view(-1, 1, 1)
