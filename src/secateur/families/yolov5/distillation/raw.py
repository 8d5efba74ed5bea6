"""Raw head outputs, weighted by the objectness of the teacher: the loss of healing without labels."""

from __future__ import annotations

from torch import Tensor

from secateur.families.yolov5.distillation import DISTILLATIONS, Imitation, View
from secateur.families.yolov5.distillation.bce import divergence
from secateur.families.yolov5.loss import joint_logit
from secateur.training.distributed import sum_over_processes

BOX, OBJECTNESS, CLASS = 20.0, 10.0, 1.0
FLOOR = 0.02
"""Weight of the background, where 1 is the weight of a certain object of the teacher."""


@DISTILLATIONS.register("raw")
class RawOutputs(Imitation):
    """Compares all cells with the weight w = objectness of the teacher + 0.02, as a weighted mean over a level of the
    whole batch:

        d_box: 20 x squared difference of the four box activations (sigmoids), summed over the four
        d_obj: 10 x divergence of the objectness
        d_cls: 1 x divergence of the class scores, summed over the classes

    Unlike `bce`, no gains of the hyper-parameters are used, and the objectness is weighted too, because a cut detector
    must first recover its objects and most cells have none. Divergences are cross-entropies minus the entropy of the
    teacher, so the loss of a perfect student is zero. If detectors have only some of their trained classes, the
    objectness also covers the removed classes. Then the divergence of the best score (objectness x class) replaces that
    of the objectness. The weight stays, because objects of other classes are the most likely false positives.
    """

    def __call__(self, view: View) -> dict[str, Tensor]:
        """The terms d_box, d_obj, d_cls, scalars."""
        heat = self.temperature(1.0)
        box = objectness = category = view.student[0].new_zeros(())
        for s, t in zip(view.student, view.teacher, strict=True):
            seen, sees = (joint_logit(t), joint_logit(s)) if self.detection.joint else (t[..., 4], s[..., 4])
            weight = t[..., 4].sigmoid() + FLOOR
            total = sum_over_processes(weight.sum())
            distance = (s[..., :4].sigmoid() - t[..., :4].sigmoid()).square().sum(-1)
            box = box + (weight * distance).sum() / total
            objectness = objectness + (weight * divergence(sees, seen, heat)).sum() / total
            category = category + (weight * divergence(s[..., 5:], t[..., 5:], heat).sum(-1)).sum() / total
        share = 1 / len(view.student)
        return {"d_box": box * BOX * share, "d_obj": objectness * OBJECTNESS * share, "d_cls": category * CLASS * share}
