"""A detector as an exported file holds it: norms folded, and the outputs that its user asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from secateur.errors import UserError
from secateur.evaluation.nms import CLASS_OFFSET
from secateur.evaluation.settings import NmsSettings
from secateur.families.detection.network import DetectionNetwork
from secateur.families.yolov5.blocks.detect import Detect
from secateur.families.yolov5.model import Detector
from secateur.networks.architecture import fused


class Decoded(nn.Module):
    """Images [B, C, H, W] in 0..1 -> decoded rows [B, N, 5 + nc], of any detection network and any size.

    With `half` all but the decoding computes in fp16, which cannot hold pixels.
    """

    def __init__(self, network: DetectionNetwork, half: bool = False) -> None:
        super().__init__()
        self.detector, self.dtype = _ready(network, half)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, 5 + nc]."""
        rows: Tensor = self.detector.predict(_cast(images, self.dtype))
        return rows


class HeadMaps(nn.Module):
    """Images [B, C, H, W] in 0..1 -> what the last convolutions give: [B, na * (5 + nc), ny, nx] of each level.

    Raises:
        UserError: the network is not of the YOLOv5 family.
    """

    def __init__(self, network: DetectionNetwork, half: bool = False) -> None:
        super().__init__()
        if not isinstance(network, Detector):
            raise UserError("The maps of a head can be exported of detectors of the YOLOv5 family alone.")
        self.detector, self.dtype = _ready(network, half)
        self.detector.model[-1] = _Convolutions(self.detector.head)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> [B, na * (5 + nc), ny, nx] of each level."""
        return [y.float() for y in self.detector(_cast(images, self.dtype))]


class FlatDecoded(nn.Module):
    """As `Decoded` for one image size: what depends on the place alone is a constant, and no tensor has five axes.

    Runtimes for phones know no such tensors, and all run fewer operators faster.
    """

    def __init__(self, network: DetectionNetwork, size: tuple[int, int], half: bool = False) -> None:
        super().__init__()
        self.maps = HeadMaps(network, half)
        assert isinstance(network, Detector)
        self.decoder = MapDecoder(network.head.anchors * _column(network.strides), network.strides, size)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, 5 + nc]."""
        return self.decoder(self.maps(images))


class MapDecoder(nn.Module):
    """Decodes the maps of a YOLOv5 head at one image size.

    Args:
        anchors: [nl, na, 2] width, height in pixels.
        strides: pixels of a cell of each level.
        size: height and width of the image.
    """

    offset: Tensor
    cell: Tensor
    anchor: Tensor

    def __init__(self, anchors: Tensor, strides: Sequence[float], size: tuple[int, int]) -> None:
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
        """[B, na * (5 + nc), ny, nx] of each level -> rows [B, N, 5 + nc] in fp32."""
        parts = []
        for y in maps:
            batch, channels, ny, nx = y.shape
            parts.append(y.reshape(batch * self.na, channels // self.na, ny * nx).transpose(1, 2))
        flat = [part.reshape(-1, self.na * part.shape[1], part.shape[2]) for part in parts]
        p = torch.cat(flat, 1).sigmoid()
        xy = p[..., 0:2] * self.cell + self.offset
        wh = p[..., 2:4] * p[..., 2:4] * self.anchor
        return torch.cat((xy, wh, p[..., 4:]), -1)


class Detections(nn.Module):
    """Images [B, C, H, W] -> boxes [B, max_det, 6] that stay after non-maximum suppression: x1, y1, x2, y2 in pixels,
    score, class; best first, rows of zeros behind the last. `evaluation.nms` with one label a box does the same."""

    def __init__(self, decoded: nn.Module, settings: NmsSettings, batch: int) -> None:
        super().__init__()
        self.decoded, self.settings, self.batch = decoded, settings, batch

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, max_det, 6]."""
        rows = self.decoded(images)
        return torch.stack([self._kept(rows[number]) for number in range(self.batch)])

    def _kept(self, rows: Tensor) -> Tensor:
        score, label = (rows[:, 5:] * rows[:, 4:5]).max(dim=1)
        found = (score > self.settings.conf).nonzero().squeeze(1)
        score, label, boxes = score[found], label[found].float(), rows[found, :4]
        half = boxes[:, 2:] / 2
        corners = torch.cat((boxes[:, :2] - half, boxes[:, :2] + half), 1)
        shifted = corners if self.settings.agnostic else corners + label[:, None] * CLASS_OFFSET
        kept = nms(shifted, score, self.settings.iou)
        result = torch.cat((corners[kept], score[kept, None], label[kept, None]), 1)
        return torch.cat((result, result.new_zeros(self.settings.max_det, 6)))[: self.settings.max_det]


class _Convolutions(Detect):
    """The last convolutions of a head without anything behind them; still a head, which tracing asks a detector for."""

    def __init__(self, head: Detect) -> None:
        super().__init__(head.nc, head.anchors.flatten(1).tolist(), [1] * head.nl)
        self.strides, self.m = head.strides, head.m

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        return [convolution(x) for convolution, x in zip(self.m, inputs, strict=True)]


class _ZeroBorder(nn.Module):
    """Zero padding by concatenation.

    ONNX Runtime's optimiser fuses Pad into a MaxPool behind it, whose border is minus infinity and not zero, and so
    changes what comes out (seen with 1.31 on yolov3-tiny); it does not fuse a Concat.
    """

    def __init__(self, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.left, self.right, self.top, self.bottom = padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, top + H + bottom, left + W + right]."""
        column = torch.zeros_like(x[..., :1])
        x = torch.cat((*(column,) * self.left, x, *(column,) * self.right), dim=3)
        row = torch.zeros_like(x[..., :1, :])
        return torch.cat((*(row,) * self.top, x, *(row,) * self.bottom), dim=2)


def _ready(network: Any, half: bool) -> tuple[Any, torch.dtype]:
    """A fused copy in which zero padding is concatenation, and what it computes in."""
    whole, dtype = fused(network), torch.float16 if half else torch.float32
    for parent in list(whole.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ZeroPad2d):
                setattr(parent, name, _ZeroBorder(child.padding))
    return whole.to(dtype), dtype


def _cast(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Traced, a cast to what images are already would stay, and keep a program from being turned into another dtype."""
    return images if images.dtype == dtype else images.to(dtype)


def _column(strides: Sequence[float]) -> Tensor:
    return torch.tensor(strides).view(-1, 1, 1)
