"""Imitation loss for networks of Ultralytics: the raw outputs of the head, compared per position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.distillation.methods import EPS, Method, Views
from secateur.distillation.settings import DistillSettings
from secateur.families.ultralytics.network import UltralyticsNetwork
from secateur.training.distributed import sum_over_processes

CLASS = 0.3
"""Weight of the class scores relative to the other terms; their gradients are noisy, and a larger weight heals less."""


class HeadAnswers(Method):
    """Compares raw outputs of the head. With w = the best class score of the teacher at a position, and W its sum over
    all positions, at least 1:

        d_cls: 0.3 x divergence of the class scores, summed over classes and positions, divided by W
        d_box: divergence of the distributions of the four distances, summed over the four; without distributions, the
            squared difference of the distances relative to the box of the teacher
        d_mask: squared difference of the mask coefficients, relative to the mean square of the teacher
        d_kpts: squared distance of the key points relative to the box area of the teacher, and divergence of their
            visibility
        d_angle: squared difference of the angles in radians
        d_proto: squared difference of the prototypes, relative to the mean square of the teacher, over all positions

    d_box to d_angle are weighted by w, summed over positions and divided by W, so that the background only affects
    d_cls. For a network with final boxes, both branches are compared with equal weight. A classifier has one position
    per image, and d_cls is the divergence of its class distributions. All divergences are cross-entropies minus the
    entropy of the teacher, so the loss of a perfect student is zero. Outputs are [B, N, C].
    """

    def __init__(self, settings: DistillSettings, network: UltralyticsNetwork) -> None:
        super().__init__(settings)
        self.key_points = tuple(getattr(network.head, "kpt_shape", (0, 0)))
        self.heat = settings.distill_temperature or 1.0

    def __call__(self, view: Views) -> dict[str, Tensor]:
        """The loss terms of the task, scalars by name."""
        if isinstance(view.teacher, Tensor):
            chances = _kl(view.student / self.heat, view.teacher / self.heat) * self.heat**2
            return {"d_cls": chances.mean() * view.share}
        parts: dict[str, Tensor] = {}
        pairs = list(branches(view.student, view.teacher))
        for student, teacher in pairs:
            for name, value in self._parts(student, teacher, view.share).items():
                parts[name] = parts.get(name, 0.0) + value / len(pairs)
        return parts

    def _parts(self, student: Mapping[str, Any], teacher: Mapping[str, Any], share: Tensor) -> dict[str, Tensor]:
        """The terms of one branch; W and all means are over the batches of all processes."""
        weight = teacher["scores"].sigmoid().amax(-1)
        total = sum_over_processes(weight.sum()).clamp_min(1)
        sides = sides_of(teacher["boxes"])
        scores = _bernoulli(student["scores"] / self.heat, teacher["scores"] / self.heat) * self.heat**2
        found = {"d_box": _boxes(student["boxes"], teacher["boxes"], sides)}
        if "mask_coefficient" in teacher:
            coefficients = teacher["mask_coefficient"]
            squares = sum_over_processes((weight[..., None] * coefficients.square()).sum())
            scale = squares / (total * coefficients.shape[-1]) + EPS
            found["d_mask"] = (student["mask_coefficient"] - coefficients).square().mean(-1) / scale
        if "kpts" in teacher:
            found["d_kpts"] = self._key_points(student["kpts"], teacher["kpts"], sides)
        if "angle" in teacher:
            found["d_angle"] = (student["angle"] - teacher["angle"]).square().sum(-1)
        parts = {name: (weight * value).sum() / total for name, value in found.items()}
        parts["d_cls"] = CLASS * scores.sum() / total
        if "proto" in teacher:
            here, there = (_prototypes(branch["proto"]) for branch in (student, teacher))
            squares = sum_over_processes(there.square().mean() * share)
            parts["d_proto"] = (here - there).square().mean() * share / (squares + EPS)
        return parts

    def _key_points(self, student: Tensor, teacher: Tensor, sides: Tensor) -> Tensor:
        """Loss [B, N] of key points [B, N, K * values], whose offsets are in cells."""
        here, there = (points.unflatten(-1, self.key_points) for points in (student, teacher))
        distance = (here[..., :2] - there[..., :2]).square().sum(-1) / sides.prod(-1)[..., None]
        if self.key_points[1] == 3:
            distance = distance + _bernoulli(here[..., 2], there[..., 2])
        return distance.mean(-1)


def branches(student: Any, teacher: Any) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Pairs of corresponding branches of two heads."""
    if "boxes" in teacher:
        yield student, teacher
        return
    for name in teacher:
        yield student[name], teacher[name]


def sides_of(boxes: Tensor) -> Tensor:
    """Width and height, [B, N, 2] in cells, of boxes [B, N, 4 * bins]; at least one cell each."""
    bins = boxes.unflatten(-1, (4, -1))
    if bins.shape[-1] > 1:
        places = torch.arange(bins.shape[-1], dtype=bins.dtype, device=bins.device)
        bins = (bins.softmax(-1) * places).sum(-1, keepdim=True)
    distances = bins[..., 0]
    return (distances[..., :2] + distances[..., 2:]).clamp_min(1)


def _boxes(student: Tensor, teacher: Tensor, sides: Tensor) -> Tensor:
    """Loss [B, N] of boxes [B, N, 4 * bins]."""
    here, there = (boxes.unflatten(-1, (4, -1)) for boxes in (student, teacher))
    if here.shape[-1] > 1:
        return _kl(here, there).sum(-1)
    return ((here - there)[..., 0] / torch.cat((sides, sides), -1)).square().sum(-1)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of the softmax distributions along the last dimension."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def _bernoulli(student: Tensor, teacher: Tensor) -> Tensor:
    """Element-wise divergence of sigmoids."""
    chance = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, chance, reduction="none")
    return F.binary_cross_entropy_with_logits(student, chance, reduction="none") - entropy


def _prototypes(given: Any) -> Tensor:
    """Prototypes [B, C, H, W]; a network in training mode may return class maps with them."""
    maps: Tensor = given[0] if isinstance(given, tuple | list) else given
    return maps
