"""Hyper-parameters of the loss and head of YOLOv5."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from secateur.errors import UserError
from secateur.training.hyp import check_hyper_parameters


@dataclass(frozen=True)
class YOLOv5Hyp:
    """The hyper-parameters of this family; the defaults are those of `scratch-low`.

    Raises:
        UserError: a value is out of range; the message names its key.
    """

    box: float = 0.05  # loss gains, for 3 levels, 80 classes, 640 pixels
    cls: float = 0.5
    cls_pw: float = 1.0  # weight of positives in the class and objectness losses
    obj: float = 1.0
    obj_pw: float = 1.0
    iou_t: float = 0.2  # accepted for compatibility with YOLOv5 files; not used
    anchor_t: float = 4.0  # a box goes to anchors within this ratio in width and height
    fl_gamma: float = 0.0  # focal loss exponent; 0 is plain cross-entropy
    label_smoothing: float = 0.0
    anchors: float = 0.0  # anchors per level to compute for a detector built from a YAML; 0: as in the YAML

    def __post_init__(self) -> None:
        check_hyper_parameters(asdict(self), below_one=("label_smoothing",), positive=("cls_pw", "obj_pw"))
        if self.anchor_t <= 1:
            raise UserError(f"Hyper-parameter anchor_t is {self.anchor_t}; as a ratio, it must be greater than 1.")
