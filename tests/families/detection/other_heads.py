"""Two detectors without objectness: one gives class scores and is suppressed, the boxes of the other are final.

Both find squares of 8 px, red, green or blue, on the grid of their cells; their weights are set by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from secateur.data.images import Image
from secateur.evaluation.nms import Candidates
from secateur.families.detection.family import DetectionFamily
from secateur.networks.tensors import set_tensors_

CELL = 8
NAMES = {0: "red", 1: "green", 2: "blue"}


@dataclass(frozen=True)
class Cells:
    """What the class-score detector is built from."""

    nc: int = 3
    channels: int = 3
    kind: ClassVar[str] = "cells"

    def build(self, names: Mapping[int, str]) -> nn.Module:
        return CellNetwork(self, names)

    def with_classes(self, nc: int) -> Cells:
        return dataclasses.replace(self, nc=nc)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cells:
        return cls(**data)


class Queries(Cells):
    """What the detector with final boxes is built from."""

    kind: ClassVar[str] = "queries"

    def build(self, names: Mapping[int, str]) -> nn.Module:
        return QueryNetwork(self, names)


class Body(nn.Module):
    """The mean of each colour in each cell as its logit: -10 on black, 10 on a full square."""

    strides = (2.0 * CELL,)  # half of it, which a validation adds as a border, is a cell

    def __init__(self, architecture: Cells, names: Mapping[int, str]) -> None:
        super().__init__()
        self.architecture, self.names, self.nc = architecture, dict(names), architecture.nc
        self.layer = nn.Conv2d(3, self.nc, CELL, CELL)
        with torch.no_grad():
            self.layer.weight.zero_()
            for colour in range(min(3, self.nc)):
                self.layer.weight[colour, colour] = 20 / CELL**2
            self.layer.bias.fill_(-10)

    def forward(self, images: Tensor) -> Any:
        return self.layer(images)

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 3, image_size or 16, image_size or 16),)

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        set_tensors_(self, tensors)


class CellNetwork(Body):
    """Of each cell two boxes: its own, and a less sure one 2 px to the right."""

    def candidates(self, raw: Tensor, confidence: float) -> list[Candidates]:
        boxes, scores = cells(raw)
        aside = boxes + torch.tensor([2.0, 0.0, 2.0, 0.0])
        return [Candidates(torch.cat((aside, boxes)), torch.cat((0.8 * of_image, of_image))) for of_image in scores]


class QueryNetwork(Body):
    """As many boxes of every image, in no order; the sixth and later ones of a black image are nothing."""

    def forward(self, images: Tensor) -> Any:
        return {"one to one": super().forward(images)}

    def boxes(self, raw: dict[str, Tensor]) -> list[Tensor]:
        boxes, scores = cells(raw["one to one"])
        best, label = scores.max(dim=2)
        return [
            torch.cat((boxes, best[image, :, None], label[image, :, None]), 1).flip(0) for image in range(len(scores))
        ]


def cells(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [n, 4] of the cells, and scores [B, n, nc]."""
    height, width = raw.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corner = CELL * torch.stack((x, y), -1).reshape(-1, 2).float()
    return torch.cat((corner, corner + CELL), 1), raw.float().flatten(2).transpose(1, 2).sigmoid()


class CellFamily(DetectionFamily):
    """What every family of detectors answers."""

    kind, title, architecture = Cells.kind, "cells", Cells


class QueryFamily(CellFamily):
    """The same for the other."""

    kind, title, architecture = Queries.kind, "queries", Queries


def squares(*places: tuple[int, int, int], side: int = 64) -> Image:
    """BGR uint8 [side, side, 3]: for each colour (0 red, 1 green, 2 blue), row and column of cells a square."""
    pixels = np.zeros((side, side, 3), np.uint8)
    for colour, row, column in places:
        pixels[CELL * row : CELL * (row + 1), CELL * column : CELL * (column + 1), 2 - colour] = 255
    return pixels
