"""The head's answers as they are, weighted by the teacher's objectness: what a healing without labels imitates."""

from __future__ import annotations

from torch import Tensor

from secateur.families.yolov5.distillation import DISTILLATIONS, Imitation, View
from secateur.families.yolov5.distillation.bce import divergence
from secateur.families.yolov5.loss import joint_logit
from secateur.training.distributed import sum_over_processes

BOX, OBJECTNESS, CLASS = 20.0, 10.0, 1.0
FLOOR = 0.02
"""What the background counts where the teacher sees an object with certainty as 1."""


@DISTILLATIONS.register("raw")
class RawOutputs(Imitation):
    """Every cell is compared, each weighted by w = teacher's objectness + 0.02, as a weighted mean over a level of the
    whole batch:

        d_box: 20 x squared difference of the four box activations (sigmoids), summed over the four
        d_obj: 10 x divergence of the objectness
        d_cls: 1 x divergence of the class scores, summed over the classes

    Unlike `bce` nothing here depends on labels' gains, and the objectness is weighted too: a detector that was cut
    first has to find its objects again, and most cells show none. Divergences are cross-entropies less the teacher's
    entropy, so a perfect student costs nothing. Of detectors that answer for some of the classes that they were trained
    on, the divergence of the best score (objectness x class) takes the place of that of the objectness, which speaks of
    the others too; the weight stays, for objects of other classes are what is most easily taken for one of these.
    """

    def __call__(self, view: View) -> dict[str, Tensor]:
        """Parts d_box, d_obj, d_cls."""
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
