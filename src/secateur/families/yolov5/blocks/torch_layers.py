"""Layers of PyTorch that topologies use under their own names, and concatenation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Site, chained, of_same_width


def _batch_norm(site: Site) -> tuple[nn.Module, int]:
    return nn.BatchNorm2d(site.widths[0]), site.widths[0]


BLOCKS.register("nn.Conv2d")(BlockKind(chained(nn.Conv2d, activation=False), wide=True))
BLOCKS.register("nn.ConvTranspose2d")(BlockKind(chained(nn.ConvTranspose2d, activation=False), wide=True))
BLOCKS.register("nn.MaxPool2d")(BlockKind(of_same_width(nn.MaxPool2d)))
BLOCKS.register("nn.Upsample")(
    BlockKind(of_same_width(nn.Upsample), compared={nn.Upsample: ("scale_factor", "size", "mode", "align_corners")})
)
BLOCKS.register("nn.ZeroPad2d")(BlockKind(of_same_width(nn.ZeroPad2d), compared={nn.ZeroPad2d: ("padding", "value")}))
BLOCKS.register("nn.BatchNorm2d")(BlockKind(_batch_norm))
BLOCKS.register("nn.Identity")(BlockKind(of_same_width(nn.Identity)))


class Concat(nn.Module):
    """Concatenates inputs along one dimension (channels by default)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Inputs [B, c_i, H, W] -> [B, sum of c_i, H, W]."""
        return torch.cat(inputs, self.d)


def _concat(site: Site) -> tuple[nn.Module, int]:
    dimension = site.args[0] if site.args else 1
    return Concat(dimension), sum(site.widths) if dimension == 1 else site.widths[0]


BLOCKS.register("Concat")(BlockKind(_concat, joins=True, compared={Concat: ("d",)}))
