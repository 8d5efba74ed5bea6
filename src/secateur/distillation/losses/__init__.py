"""What a student can imitate: one file a method, each a class under its name in `DISTILLATIONS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.distillation.settings import DistillSettings
from secateur.families.yolov5.loss import DetectionLoss
from secateur.registry import Registry


@dataclass(frozen=True)
class View:
    """One batch of this process as student and teacher see it: nl levels, all float32 (float64 where
    the detectors are), nothing of the teacher's with a gradient.

    Attributes:
        student, teacher: logits [B, na, ny, nx, 5 + nc] of each level (box 0-3, objectness 4, classes). The teacher's
            anchors are in the student's order.
        student_anchors, teacher_anchors: [nl, na, 2] widths and heights, in cells.
        targets: [T, 6] rows (image, class, x, y, w, h), normalised.
        share: images of this process over images of all; a mean over this process's cells times it is its share of the
            mean over the cells of all.
        student_features, teacher_features: inputs [B, c, ny, nx] of the head at each level, the same channels of both;
            empty unless a method with `features` is in use.
    """

    student: tuple[Tensor, ...]
    teacher: tuple[Tensor, ...]
    student_anchors: Tensor
    teacher_anchors: Tensor
    targets: Tensor
    share: Tensor
    student_features: tuple[Tensor, ...] = ()
    teacher_features: tuple[Tensor, ...] = ()


class Imitation(ABC):
    """One method.

    Args:
        settings: the user's options.
        detection: the student's detection loss, whose gains (`box_gain`, `objectness_gain`, `class_gain`, the
            `balance` of its levels) are what hyp's box, obj and cls mean for its levels, classes and image size.
    """

    features: ClassVar[bool] = False
    """Whether it compares features: it then works between a detector and what was cut from it only."""

    def __init__(self, settings: DistillSettings, detection: DetectionLoss) -> None:
        self.settings, self.detection = settings, detection

    @abstractmethod
    def __call__(self, view: View) -> dict[str, Tensor]:
        """Loss parts by name (d_box, d_obj, ...): scalars to differentiate, with gains, not times the batch size.

        With several processes each gives its share: the parts' sum over processes is the loss of the whole batch.
        """

    def temperature(self, own: float) -> float:
        """The user's temperature, or else the method's own."""
        return self.settings.distill_temperature or own


DISTILLATIONS: Registry[type[Imitation]] = Registry("distillation", "secateur.distillation.losses")
