"""Layers of PyTorch that stand in topologies under their own names."""

from __future__ import annotations

from torch import nn

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
