"""Compares head outputs as independent sigmoids by cross-entropy, and decoded boxes by CIoU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.families.yolov5.distillation import DISTILLATIONS, Imitation, View
from secateur.families.yolov5.loss import complete_iou
from secateur.training.distributed import sum_over_processes


@DISTILLATIONS.register("bce")
class SigmoidOutputs(Imitation):
    """The detection loss with the outputs of the teacher as labels.

    With KL(t, s) = T^2 times the divergence of Bernoulli(sigmoid(t / T)) from Bernoulli(sigmoid(s / T)), which is their
    binary cross-entropy minus the entropy of the teacher, so that the loss of a perfect student is zero:

        d_obj: mean of KL over all cells of a level, with the level balance of the detection loss
        d_box: 1 - CIoU of the decoded boxes  } means over the cells of all levels together,
        d_cls: mean of KL over the classes    } weighted by the objectness of the teacher, sigmoid(t)

    Dividing by the sum of the weights instead of the number of cells prevents the background from diluting the few
    objects. The sum is at least one cell, so that the loss of an empty image stays small.
    """

    def __call__(self, view: View) -> dict[str, Tensor]:
        """The terms d_box, d_obj, d_cls, scalars."""
        heat, gains, levels = self.temperature(1.0), self.detection, len(view.student)
        objectness = box = category = total = view.student[0].new_zeros(())
        for i, (s, t) in enumerate(zip(view.student, view.teacher, strict=True)):
            weight = t[..., 4].sigmoid()
            objectness = objectness + gains.balance[i] * divergence(s[..., 4], t[..., 4], heat).mean()
            category = category + (weight * divergence(s[..., 5:], t[..., 5:], heat).mean(-1)).sum()
            here, there = decode(s, view.student_anchors[i]), decode(t, view.teacher_anchors[i])
            # The CIoU of equal boxes is slightly below 1, because its fractions avoid 0 / 0; more so for tiny boxes.
            best = complete_iou(there, there)
            box = box + (weight.flatten() * (best - complete_iou(here, there))).sum()
            total = total + weight.sum()
        # The detection loss adds one mean per level; here one mean covers all levels.
        norm = levels / sum_over_processes(total).clamp(min=1.0)
        parts = {"d_box": box * (gains.box_gain * norm)}
        parts["d_obj"] = objectness * gains.objectness_gain * view.share
        parts["d_cls"] = category * (gains.class_gain * norm)
        return parts


def divergence(student: Tensor, teacher: Tensor, heat: float) -> Tensor:
    """T^2 KL of two Bernoulli distributions given by logits of any shape, element by element."""
    wanted = (teacher / heat).sigmoid()
    cross = F.binary_cross_entropy_with_logits(student / heat, wanted, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(teacher / heat, wanted, reduction="none")
    return heat**2 * (cross - entropy)


def decode(logits: Tensor, anchors: Tensor) -> Tensor:
    """Logits [B, na, ny, nx, no] -> boxes [n, 4]: centre from the cell's corner, width and height; in cells."""
    scores = logits[..., :4].sigmoid()
    sides = (scores[..., 2:] * 2).square() * anchors[:, None, None, :]
    return torch.cat([scores[..., :2] * 2 - 0.5, sides], -1).flatten(0, 3)
