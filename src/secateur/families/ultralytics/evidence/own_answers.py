"""Labels for images without labels: masks, key points, oriented boxes or classes sampled from predictions of a
network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from secateur.families.detection.own_labels import LOOSENESS, SETTINGS, Sight
from secateur.families.ultralytics.evidence.targets import VALUES
from secateur.families.ultralytics.network import UltralyticsNetwork
from secateur.families.ultralytics.package import needed

_ROW = 6
"""Columns of detections of the package before those of the task: four for the box, score, class."""
LEAST = 1.0
"""Minimum side in pixels; a head without distributions can predict boxes without area."""
_PATIENCE = 60.0
"""Time limit per image, in seconds, for the suppression of the package."""


class OwnClasses:
    """Labels images with classes sampled from the predicted probabilities of a classifier."""

    def __init__(self, network: UltralyticsNetwork, seed: int = 0) -> None:
        self.network, self.generator = copy.deepcopy(network).eval(), torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Class ids [B] for images [B, C, H, W] in 0..1."""
        chances: Tensor = self.network(images).float().softmax(1).cpu()
        return torch.multinomial(chances, 1, generator=self.generator)[:, 0]

    def require_some(self) -> None:
        """Does nothing: a classifier always predicts a class."""


class OwnAnswers:
    """Labels images with predictions of a network for masks, key points or oriented boxes.

    As in `OwnDetections`, each detection is included with the probability of its score, and its box is slightly
    perturbed. So are its angle and its key points. The visibility of key points is sampled from its probability, and a
    mask covers the pixels whose probability exceeds a random level per object.
    """

    def __init__(self, network: UltralyticsNetwork, seed: int = 0) -> None:
        self.task, self.nc = network.architecture.task, network.nc
        self.model: Any = copy.deepcopy(network.model).eval()
        self.final = network.architecture.end_to_end
        if self.final:
            self.model.end2end = True
        self.points = tuple(getattr(network.head, "kpt_shape", (0, 0)))
        self.ratio = int(self.model.args.mask_ratio)
        self.generator, self.sight = torch.Generator().manual_seed(seed), Sight()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Targets for images [B, C, H, W] in 0..1, see `targets`."""
        suppress = needed("utils.nms").non_max_suppression
        answers, prototypes = self.model(images)[0], None
        if self.task == "segment":
            answers, prototypes = answers
        rows = []
        for number in range(len(images)):
            found = suppress(
                answers[number : number + 1], SETTINGS.conf, SETTINGS.iou, nc=self.nc, rotated=self.task == "obb",
                end2end=self.final, max_time_img=_PATIENCE,
            )[0].float()  # fmt: skip
            low, high = (0, found[:, 2:4]) if self.task == "obb" else (found[:, :2], found[:, 2:4])
            found = found[(high - low > LEAST).all(1)]
            self.sight.see(found[:, 4].cpu())
            found = found[self._chances(len(found), 1)[:, 0].to(found.device) < found[:, 4]]
            own = None if prototypes is None else prototypes[number].float()
            rows.append(self._drawn(number, found, own, images.shape[2:]))
        return torch.cat(rows)

    def require_some(self) -> None:
        """See `Sight.require_some`."""
        self.sight.require_some()

    def _drawn(self, number: int, found: Tensor, prototypes: Tensor | None, sides: torch.Size) -> Tensor:
        """Targets of one image from its detections [n, 6 + values] in pixels, on the CPU."""
        extra, height, width = found[:, _ROW:], *sides
        masks = self._masks(found, prototypes, sides) if prototypes is not None else None
        found, extra = found.cpu(), extra.cpu()
        whole = found.new_tensor([width, height])
        if self.task == "obb":
            centres, extent = found[:, :2], found[:, 2:4]
        else:
            centres, extent = (found[:, :2] + found[:, 2:4]) / 2, found[:, 2:4] - found[:, :2]
        off = LOOSENESS * self._normal(len(found), 5)
        box = torch.cat(((centres + off[:, :2] * extent) / whole, extent * off[:, 2:4].exp() / whole), 1)
        rows = torch.cat((torch.full((len(found), 1), float(number)), found[:, 5:6], box), 1)
        if self.task == "obb":
            return torch.cat((rows, extra[:, :1] + off[:, 4:]), 1)
        if self.task == "pose":
            return torch.cat((rows, self._key_points(extra, extent, whole)), 1)
        assert masks is not None
        return torch.cat((rows, masks.cpu().flatten(1).float()), 1)

    def _key_points(self, values: Tensor, extent: Tensor, whole: Tensor) -> Tensor:
        """x, y (normalised) and visibility, [n, 3 * K], of key points in pixels."""
        points = values.unflatten(1, self.points)
        count, each = points.shape[:2]
        places = points[..., :2] + LOOSENESS * self._normal(count, each * 2).view(count, each, 2) * extent[:, None]
        seen = points.new_ones((count, each, 1))
        if self.points[1] == VALUES:
            seen = (self._chances(count, each) < points[..., 2])[..., None].float()
        return torch.cat((places / whole, seen), 2).flatten(1)

    def _masks(self, found: Tensor, prototypes: Tensor, sides: torch.Size) -> Tensor:
        """Masks [n, h, w] inside the boxes, at the size of the targets."""
        small = [side // self.ratio for side in sides]
        chances = (found[:, _ROW:] @ prototypes.flatten(1)).sigmoid().unflatten(1, prototypes.shape[1:])
        if list(chances.shape[1:]) != small and len(chances):
            chances = torch.nn.functional.interpolate(chances[None], small, mode="bilinear", align_corners=False)[0]
        level = self._chances(len(found), 1).to(found.device)[..., None]
        masks = (chances > level).float().reshape(len(found), *small)
        inside: Tensor = needed("utils.ops").crop_mask(masks, found[:, :4] / self.ratio)
        return inside

    def _chances(self, *sides: int) -> Tensor:
        return torch.rand(sides, generator=self.generator)

    def _normal(self, *sides: int) -> Tensor:
        return torch.randn(sides, generator=self.generator)
