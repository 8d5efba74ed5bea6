"""Joining the outputs of several blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Site


class Concat(nn.Module):
    """Joins several inputs along one dimension (channels, unless the YAML says otherwise)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """[B, c_i, H, W] each -> [B, sum of c_i, H, W]."""
        return torch.cat(inputs, self.d)


def _concat(site: Site) -> tuple[nn.Module, int]:
    dimension = site.args[0] if site.args else 1
    return Concat(dimension), sum(site.widths) if dimension == 1 else site.widths[0]


BLOCKS.register("Concat")(BlockKind(_concat, joins=True, compared={Concat: ("d",)}))
