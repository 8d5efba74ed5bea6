"""A toy family of detectors without anchors and objectness: class scores and one box for every cell of 8 px."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.evaluation.nms import Candidates
from secateur.families.detection.family import DetectionFamily
from secateur.families.family import FAMILIES
from secateur.networks.tensors import set_tensors_
from secateur.training.settings import TrainSettings

STRIDE = 8
Raw = dict[str, Tensor]


@dataclass(frozen=True)
class Spots:
    """The plain data that builds the network."""

    nc: int
    width: int = 16
    channels: int = 3
    kind: ClassVar[str] = "rings"

    def build(self, names: Mapping[int, str]) -> SpotNetwork:
        return SpotNetwork(self, names)

    def with_classes(self, nc: int) -> Spots:
        return dataclasses.replace(self, nc=nc)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spots:
        return cls(**{name: int(data[name]) for name in ("nc", "width", "channels")})

    def __str__(self) -> str:
        return f"spot detector of width {self.width}"


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU(inplace=True)
    )


class SpotNetwork(nn.Module):
    """Convolutions with one residual sum, and a head of two branches."""

    strides = (float(STRIDE),)

    def __init__(self, architecture: Spots, names: Mapping[int, str]) -> None:
        super().__init__()
        self.architecture, self.names = architecture, dict(names)
        width = architecture.width
        self.stem = nn.Sequential(conv(architecture.channels, width, 2), conv(width, 2 * width, 2))
        self.down = conv(2 * width, 4 * width, 2)
        self.inner = nn.Sequential(conv(4 * width, 4 * width), conv(4 * width, 4 * width))
        self.scores = nn.Sequential(conv(4 * width, 2 * width), nn.Conv2d(2 * width, architecture.nc, 1))
        self.boxes_of_cells = nn.Sequential(conv(4 * width, 2 * width), nn.Conv2d(2 * width, 4, 1))
        self.initialize_biases()

    def initialize_biases(self) -> None:
        """Objects are rare."""
        last = self.scores[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, -4.0)

    @property
    def nc(self) -> int:
        return self.architecture.nc

    def forward(self, images: Tensor) -> Raw:
        """Logits of classes [B, nc, h, w], and of distances to the four sides [B, 4, h, w]."""
        deep = self.down(self.stem(images))
        deep = deep + self.inner(deep)
        return {"scores": self.scores(deep), "distances": self.boxes_of_cells(deep)}

    def candidates(self, raw: Raw, confidence: float) -> Sequence[Candidates]:
        """A box and class scores of every cell."""
        corners = corners_of(raw["distances"].float()).flatten(2).transpose(1, 2)
        scores = raw["scores"].float().sigmoid().flatten(2).transpose(1, 2)
        return [Candidates(boxes, own) for boxes, own in zip(corners, scores, strict=True)]

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        side = image_size or 32
        like = next(self.parameters())
        return (torch.zeros(1, self.architecture.channels, side, side, dtype=like.dtype, device=like.device),)

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        set_tensors_(self, tensors)


def corners_of(distances: Tensor) -> Tensor:
    """Logits of distances [B, 4, h, w] -> x1, y1, x2, y2 in pixels, [B, 4, h, w]."""
    far = distances.clamp(max=6).exp() * STRIDE
    ys, xs = (torch.arange(side, device=distances.device) + 0.5 for side in distances.shape[2:])
    y, x = torch.meshgrid(ys * STRIDE, xs * STRIDE, indexing="ij")
    return torch.stack((x - far[:, 0], y - far[:, 1], x + far[:, 2], y + far[:, 3]), 1)


class SpotLoss:
    """Cross-entropy of every cell, and the overlap of the boxes of the cells in which objects have their centres."""

    def __call__(self, raw: Raw, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        scores, height, width = raw["scores"].float(), *raw["scores"].shape[2:]
        wanted = torch.zeros_like(scores)
        image, label = targets[:, 0].long(), targets[:, 1].long()
        column = (targets[:, 2] * width).long().clamp(0, width - 1)
        row = (targets[:, 3] * height).long().clamp(0, height - 1)
        wanted[image, label, row, column] = 1
        classes = F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / max(len(targets), 1)
        found = corners_of(raw["distances"].float())[image, :, row, column]
        size = targets.new_tensor([width, height, width, height]) * STRIDE
        true = torch.cat((targets[:, 2:4] - targets[:, 4:6] / 2, targets[:, 2:4] + targets[:, 4:6] / 2), 1) * size
        box = (1 - overlap(found, true)).sum() / max(len(targets), 1)
        total = (box + classes) * len(images)
        return total, {"box": box.detach(), "cls": classes.detach()}


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes [n, 4] with boxes [n, 4], -> [n]."""
    inner = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(0).prod(1) for boxes in (first, second)]
    return inner / (areas[0] + areas[1] - inner + 1e-7)


class SpotFamily(DetectionFamily):
    """All that sets the family apart from other detectors: its loss. Its network says which boxes it proposes."""

    kind, title, architecture = Spots.kind, "spot detector", Spots

    def loss(self, network: nn.Module, settings: TrainSettings) -> SpotLoss:
        return SpotLoss()


FAMILIES.register(Spots.kind)(SpotFamily())
