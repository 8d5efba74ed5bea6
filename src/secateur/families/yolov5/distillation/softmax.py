"""Objectness and classes of a cell in one softmax, and boxes pulled where the teacher is better (loss of tanluren)."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.families.yolov5.distillation import DISTILLATIONS, Imitation, View
from secateur.families.yolov5.distillation.bce import decode
from secateur.families.yolov5.loss import assign
from secateur.training.distributed import sum_over_processes


@DISTILLATIONS.register("softmax")
class SoftmaxOutputs(Imitation):
    """The distillation of yolov3-channel-and-layer-pruning by tanluren.

        d_cls = cls gain * mean of T^2 KL(softmax(t / T) || softmax(s / T)) over objectness and classes together, T = 3
        d_box = box gain * mean over positives of the squared distance of the box of the student to the label, in cells,
                where it is larger than that of the teacher

    The original sums the first term over all cells, so that background dominates; here the mean is weighted by the
    objectness of the teacher, over the cells of all levels. The second term is divided by the number of positives
    instead of summed.
    """

    def __call__(self, view: View) -> dict[str, Tensor]:
        """The terms d_box, d_cls, scalars."""
        heat, gains, levels = self.temperature(3.0), self.detection, len(view.student)
        category = box = weights = positives = view.student[0].new_zeros(())
        for i, (s, t) in enumerate(zip(view.student, view.teacher, strict=True)):
            weight = t[..., 4].sigmoid()
            here, there = (s[..., 4:] / heat).log_softmax(-1), (t[..., 4:] / heat).log_softmax(-1)
            category = category + heat**2 * (weight * (there.exp() * (there - here)).sum(-1)).sum()
            weights = weights + weight.sum()
            mine, theirs = self.distances(view, i)
            box = box + mine[mine > theirs].sum()
            positives = positives + mine.numel()
        shared = sum_over_processes(torch.stack([weights, positives])).clamp(min=1.0)
        parts = {"d_box": box * (levels * gains.box_gain) / shared[1]}
        parts["d_cls"] = category * (levels * gains.class_gain) / shared[0]
        return parts

    def distances(self, view: View, level: int) -> tuple[Tensor, Tensor]:
        """Squared distance to the label, in cells, of the box of student and teacher at each positive: [n] each."""
        anchors, shape = view.student_anchors[level], view.student[level].shape
        found = assign(view.targets, anchors, (shape[2], shape[3]), self.detection.hyp.anchor_t)
        place = (found.image, found.anchor, found.row, found.column)
        pair = (view.student[level], anchors), (view.teacher[level], view.teacher_anchors[level])
        mine, theirs = (decode(logits, sizes).view(*shape[:4], 4)[place] for logits, sizes in pair)
        return (mine - found.box).square().sum(1), (theirs - found.box).square().sum(1)
