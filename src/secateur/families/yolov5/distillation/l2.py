"""Squared differences of head outputs, each cell weighted by the objectness of the teacher (`l2`, `kl` of Intel)."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.families.yolov5.distillation import DISTILLATIONS, Imitation, View


@DISTILLATIONS.register("l2")
class SquaredOutputs(Imitation):
    """Compares boxes after the sigmoid, objectness and classes as logits; means over all cells of a level.

    With w = sigmoid(objectness of the teacher) and s, t the logits of student and teacher, each level adds

        d_box = box gain * (mean[w (sig(s_xy) - sig(t_xy))^2] + mean[w (sig(s_wh) - r sig(t_wh))^2])
        d_obj = obj gain * mean[w (s_obj - t_obj)^2]
        d_cls = cls gain * mean[w (s_cls - t_cls)^2]

    where r = sqrt(anchor of the teacher / anchor of the student) makes the loss of equal boxes with different anchors
    zero. After the YOLOv5 example of Intel Neural Compressor; the weighting is that of Mehta and Ozturk, "Object
    detection at 200 frames per second" (2018).
    """

    def __call__(self, view: View) -> dict[str, Tensor]:
        """The terms d_box, d_obj, d_cls, scalars."""
        box = objectness = category = view.student[0].new_zeros(())
        ratios = (view.teacher_anchors / view.student_anchors).sqrt()
        for s, t, r in zip(view.student, view.teacher, ratios, strict=True):
            weight = t[..., 4:5].sigmoid()
            there, here = t[..., :4].sigmoid(), s[..., :4].sigmoid()
            # Ones for the centre, r for the sides, shaped for [B, na, ny, nx, 4].
            scale = torch.cat([torch.ones_like(r), r], 1)[:, None, None, :]
            squares = (weight * (here - scale * there).square()).mean((0, 1, 2, 3))
            box = box + squares[:2].mean() + squares[2:].mean()
            objectness = objectness + (weight * (s[..., 4:5] - t[..., 4:5]).square()).mean()
            category = category + (weight * self.classes(s[..., 5:], t[..., 5:])).mean()
        gains = self.detection
        return {
            "d_box": box * gains.box_gain * view.share,
            "d_obj": objectness * gains.objectness_gain * view.share,
            "d_cls": category * gains.class_gain * view.share,
        }

    def classes(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss per class score, [B, na, ny, nx, nc]."""
        return (student - teacher).square()


@DISTILLATIONS.register("kl")
class SoftmaxClasses(SquaredOutputs):
    """d_cls = cls gain * mean[w T^2 p_t (log p_t - log p_s)] with p = softmax(class logits / T), T = 20.

    T^2 keeps the size of the gradient independent of T (Hinton et al. 2015). With one class the loss is zero.
    """

    def classes(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Elements of T^2 KL(teacher || student), [B, na, ny, nx, nc]; their sum over classes is never negative."""
        heat = self.temperature(20.0)
        here, there = (student / heat).log_softmax(-1), (teacher / heat).log_softmax(-1)
        return heat**2 * there.exp() * (there - here)
