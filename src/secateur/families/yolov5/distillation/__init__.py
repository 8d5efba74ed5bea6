"""What a student of YOLOv5's head can imitate: one file a method, each a class under its name in `DISTILLATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from secateur.distillation.methods import Method, StandardisedFeatures, Views
from secateur.distillation.settings import DistillSettings
from secateur.families.yolov5.loss import DetectionLoss
from secateur.registry import Registry


@dataclass(frozen=True, kw_only=True)
class View(Views):
    """One batch of this process as student and teacher see it.

    Attributes:
        student, teacher: logits [B, na, ny, nx, 5 + nc] of each of nl levels (box 0-3, objectness 4, classes). The
            teacher's anchors are in the student's order.
        student_anchors, teacher_anchors: [nl, na, 2] widths and heights, in cells.
        targets: [T, 6] rows (image, class, x, y, w, h), normalised.
        student_features, teacher_features: inputs [B, c, ny, nx] of the head at each level, the same channels of both.
    """

    student: tuple[Tensor, ...]
    teacher: tuple[Tensor, ...]
    student_anchors: Tensor
    teacher_anchors: Tensor


class Imitation(Method):
    """One method.

    Args:
        settings: the user's options.
        detection: the student's detection loss, whose gains (`box_gain`, `objectness_gain`, `class_gain`, the
            `balance` of its levels) are what hyp's box, obj and cls mean for its levels, classes and image size.
    """

    def __init__(self, settings: DistillSettings, detection: DetectionLoss) -> None:
        super().__init__(settings)
        self.detection = detection

    def temperature(self, own: float) -> float:
        """The user's temperature, or else the method's own."""
        return self.settings.distill_temperature or own


DISTILLATIONS: Registry[Callable[[DistillSettings, DetectionLoss], Method]] = Registry(
    "distillation", "secateur.families.yolov5.distillation"
)
DISTILLATIONS.register("features")(lambda settings, detection: StandardisedFeatures(settings))
