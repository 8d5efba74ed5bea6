"""Imitation of the head of YOLOv5, with anchors of student and teacher paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.distillation.imitate import Imitate
from secateur.distillation.pairing import check_pair, fed_channels
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.yolov5.distillation import DISTILLATIONS, View
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.loss import DetectionLoss
from secateur.families.yolov5.model import Detector
from secateur.training.optimization.precision import full_precision


class ImitateHead(Imitate):
    """See `Imitate`; the anchors of the student are read on first use, after AutoAnchor.

    Args:
        name: name of the teacher, for messages.
        plan, teacher_plan: plans of the two checkpoints; `features` needs them if the student was cut.

    Raises:
        UserError: a method is unknown, or the teacher does not match.
    """

    student: Detector

    def __init__(
        self,
        settings: DistillSettings,
        student: Detector,
        teacher: Detector,
        hyp: YOLOv5Hyp,
        image_size: int,
        *,
        name: str = "",
        plan: Mapping[str, Any] | None = None,
        teacher_plan: Mapping[str, Any] | None = None,
    ) -> None:
        kinds = [DISTILLATIONS[method] for method in settings.methods]
        check_heads(student, teacher, name)
        detection = DetectionLoss(student, hyp, image_size)
        methods = [kind(settings, detection) for kind in kinds]
        heads = head_layers(student), head_layers(teacher)
        needed = any(method.features for method in methods)
        channels = fed_channels(student, teacher, heads, plan, teacher_plan) if needed else ()
        super().__init__(settings, student, teacher, methods, heads=heads, channels=channels)
        self._orders: tuple[Tensor, ...] = ()

    def views(
        self,
        raw: Any,
        taught: Any,
        targets: Tensor,
        share: Tensor,
        seen: tuple[Tensor, ...] = (),
        features: tuple[Tensor, ...] = (),
    ) -> View:
        """Levels [B, na, ny, nx, 5 + nc] of student and teacher, with anchors in the order of the student."""
        assert isinstance(self.teacher, Detector)
        mine, theirs = full_precision(self.student.head.anchors), full_precision(self.teacher.head.anchors)
        orders = self._orders or tuple(anchor_order(a, b) for a, b in zip(mine, theirs, strict=True))
        if self._placed:  # otherwise the networks may still move to another device
            self._orders = orders
        return View(
            student=tuple(full_precision(level) for level in raw),
            teacher=tuple(full_precision(level[:, order]) for level, order in zip(taught, orders, strict=True)),
            student_anchors=mine,
            teacher_anchors=torch.stack([a[order] for a, order in zip(theirs, orders, strict=True)]),
            targets=targets.to(theirs.dtype),
            share=share,
            student_features=seen,
            teacher_features=features,
        )


def head_layers(detector: Detector) -> tuple[str, ...]:
    """Names of the convolutions of the head, one per level."""
    return tuple(f"model.{len(detector.model) - 1}.m.{level}" for level in range(detector.nl))


def check_heads(student: Detector, teacher: Detector, name: str = "") -> None:
    """Checks that the outputs of the teacher can be compared with those of the student; widths, depths and anchors may
    differ.

    Raises:
        UserError: they cannot; the message names the difference.
    """
    check_pair(student, teacher, name)
    if teacher.na != student.na:
        title = f"The teacher {name}" if name else "The teacher"
        raise UserError(
            f"{title} has {teacher.na} {'anchor' if teacher.na == 1 else 'anchors'} per level, but the student has "
            f"{student.na}. Set --teacher to a detector with the same number."
        )


def anchor_order(student: Tensor, teacher: Tensor) -> Tensor:
    """For each anchor of a level of the student [na, 2], the index of the most similar anchor of the teacher [na, 2]:
    int64 [na].

    The closest pair by side ratios is matched first, then the closest of the remaining ones, and so on.
    """
    distance = (student.log()[:, None] - teacher.log()[None]).square().sum(2).cpu()
    order = torch.empty(len(student), dtype=torch.int64)
    for _ in range(len(student)):
        row, column = divmod(int(distance.argmin()), len(teacher))
        order[row] = column
        distance[row], distance[:, column] = torch.inf, torch.inf
    return order.to(student.device)
