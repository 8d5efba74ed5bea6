"""How far a student is from its teacher on pictures that it does not train on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from secateur.distillation.losses import View
from secateur.distillation.losses.raw import RawOutputs
from secateur.distillation.pairing import anchor_order
from secateur.distillation.settings import DistillSettings
from secateur.families.yolov5.loss import DetectionLoss
from secateur.families.yolov5.model import Detector
from secateur.training.hyp import Hyp
from secateur.training.results import HeldOutLoss


class HeldOut:
    """Measures students against one teacher by the loss `raw` of their outputs.

    Args:
        teacher: a copy with BatchNorm folded in is kept; the detector itself is left as it is.
        batches: [B, C, H, W] in 0..1, on the device on which the students are.
        image_size: px.
    """

    def __init__(self, teacher: Detector, batches: Iterable[Tensor], image_size: int) -> None:
        self.teacher = teacher.fused().eval()
        self.batches = list(batches)
        self.image_size = image_size

    @torch.no_grad()
    def __call__(self, student: Detector) -> HeldOutLoss:
        """The mean over the pictures."""
        method = RawOutputs(DistillSettings(), DetectionLoss(student, Hyp(), self.image_size))
        mine, theirs = student.head.anchors.float(), self.teacher.head.anchors.float()
        orders = [anchor_order(a, b) for a, b in zip(mine, theirs, strict=True)]
        total, images = 0.0, 0
        for batch in self.batches:
            self.teacher.to(batch.device)
            taught = [level[:, order] for level, order in zip(self.teacher(batch), orders, strict=True)]
            view = View(
                student=tuple(student(batch)),
                teacher=tuple(taught),
                student_anchors=mine,
                teacher_anchors=theirs,
                targets=batch.new_zeros((0, 6)),
                share=batch.new_ones(()),
            )
            total += float(torch.stack(list(method(view).values())).sum()) * len(batch)
            images += len(batch)
        return HeldOutLoss(total / max(images, 1))
