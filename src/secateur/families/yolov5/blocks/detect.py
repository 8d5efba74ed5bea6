"""The anchor-based detection head, and decoding of its outputs into boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Site


class Detect(nn.Module):
    """One 1x1 convolution per level; `anchors` [nl, na, 2] are (width, height) in units of the stride of the level."""

    anchors: Tensor

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
        super().__init__()
        self.nc = nc
        self.no = nc + 5
        self.nl = len(anchors)
        self.na = len(anchors[0]) // 2
        self.strides: tuple[float, ...] = (1.0,) * self.nl
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(self.nl, self.na, 2))
        self.m = nn.ModuleList(nn.Conv2d(width, self.no * self.na, 1) for width in channels)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """Feature maps [B, c_i, ny, nx] -> raw logits [B, na, ny, nx, no], one tensor per level."""
        outputs = []
        for convolution, x in zip(self.m, inputs, strict=True):
            y = convolution(x)
            batch, _, ny, nx = y.shape
            outputs.append(y.view(batch, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2))
        return outputs

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Raw logits -> float32 [B, sum of na * ny * nx, no]: centre x and y, width, height in pixels, then scores.

        A centre can be up to half a cell outside its cell; sizes are at most four times the anchor.
        """
        rows = []
        for y, anchors, stride in zip(raw, self.anchors, self.strides, strict=True):
            # Half precision cannot represent pixel coordinates, so boxes are computed in fp32.
            p = y.float().sigmoid()
            batch, ny, nx = p.shape[0], p.shape[2], p.shape[3]
            columns = torch.arange(nx, device=p.device, dtype=p.dtype).view(1, nx).expand(ny, nx)
            lines = torch.arange(ny, device=p.device, dtype=p.dtype).view(ny, 1).expand(ny, nx)
            grid = torch.stack((columns, lines), -1)  # [ny, nx, 2]
            xy = (p[..., 0:2] * 2 + (grid - 0.5)) * stride
            wh = (p[..., 2:4] * 2) ** 2 * (anchors.float() * stride).view(self.na, 1, 1, 2)
            rows.append(torch.cat((xy, wh, p[..., 4:]), -1).reshape(batch, self.na * ny * nx, self.no))
        return torch.cat(rows, 1)

    def decode_above(self, raw: Sequence[Tensor], confidence: float) -> list[Tensor]:
        """Decoded rows [n, no] of each image whose objectness is above `confidence`, in the order of `decode`.

        Nearly all rows of an image are background. Skipping them before decoding makes decoding cheap compared with a
        small network.
        """
        if confidence < 0:
            return list(self.decode(raw))  # all rows, including NaN
        least = math.log(confidence / (1 - confidence)) if confidence > 0 else -math.inf
        found: list[list[Tensor]] = [[] for _ in range(len(raw[0]))]
        for y, anchors, stride in zip(raw, self.anchors, self.strides, strict=True):
            image, anchor, line, column = (y[..., 4] > least).nonzero(as_tuple=True)
            p = y[image, anchor, line, column].float().sigmoid()
            corner = torch.stack((column, line), 1) - 0.5
            xy = (p[:, :2] * 2 + corner) * stride
            wh = (p[:, 2:4] * 2) ** 2 * (anchors.float() * stride)[anchor]
            rows = torch.cat((xy, wh, p[:, 4:]), 1)
            for place, part in enumerate(rows.split(torch.bincount(image, minlength=len(y)).tolist())):
                found[place].append(part)
        return [torch.cat(parts) for parts in found]

    def set_strides(self, strides: Sequence[float]) -> None:
        """Sets the strides and converts `anchors` from pixels to stride units."""
        self.strides = tuple(float(s) for s in strides)
        scale = torch.tensor(self.strides, device=self.anchors.device).view(-1, 1, 1)
        self.anchors = self.anchors / scale

    def initialize_biases(self) -> None:
        """Sets the prior of a new detector: 8 objects in a 640 px image, all classes rare (arXiv:1708.02002, 3.3)."""
        with torch.no_grad():
            for convolution, stride in zip(self.m, self.strides, strict=True):
                bias = convolution.get_parameter("bias").view(self.na, -1)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 5 : 5 + self.nc] += math.log(0.6 / (self.nc - 0.99999))


def _detect(site: Site) -> tuple[nn.Module, int]:
    head = Detect(site.nc, site.anchors, site.widths)
    return head, head.na * head.no


BLOCKS.register("Detect")(BlockKind(_detect, joins=True, head=True))
