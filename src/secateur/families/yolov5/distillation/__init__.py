"""Distillation losses for the head of YOLOv5, one file per method; each class is registered in `DISTILLATIONS`."""

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
    """One batch of this process, as processed by student and teacher.

    Attributes:
        student, teacher: logits [B, na, ny, nx, 5 + nc] of each of nl levels (box 0-3, objectness 4, classes). The
            anchors of the teacher are in the order of the student.
        student_anchors, teacher_anchors: [nl, na, 2], widths and heights in cells.
        targets: [T, 6], rows (image, class, x, y, w, h), normalised.
        student_features, teacher_features: inputs [B, c, ny, nx] of the head per level, with the same channels in both.
    """

    student: tuple[Tensor, ...]
    teacher: tuple[Tensor, ...]
    student_anchors: Tensor
    teacher_anchors: Tensor


class Imitation(Method):
    """One method. Its terms are scalars by name.

    Args:
        settings: options of the user.
        detection: detection loss of the student. Its gains (`box_gain`, `objectness_gain`, `class_gain`, the `balance`
            of its levels) are the hyper-parameters box, obj and cls, adapted to levels, classes and image size.
    """

    def __init__(self, settings: DistillSettings, detection: DetectionLoss) -> None:
        super().__init__(settings)
        self.detection = detection

    def temperature(self, own: float) -> float:
        """The temperature set by the user, or the default of the method."""
        return self.settings.distill_temperature or own


DISTILLATIONS: Registry[Callable[[DistillSettings, DetectionLoss], Method]] = Registry(
    "distillation", "secateur.families.yolov5.distillation"
)
DISTILLATIONS.register("features")(lambda settings, detection: StandardisedFeatures(settings))
