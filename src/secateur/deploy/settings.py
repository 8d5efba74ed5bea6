"""The options of an export: the one place of their defaults (imports no torch)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from secateur.errors import UserError, shown
from secateur.evaluation.settings import PREDICTION, NmsSettings
from secateur.ranges import BATCH, SHARE, Advanced, Between, check_ranges

PRECISIONS = ("fp32", "fp16", "int8")
OUTPUTS = ("decoded", "raw", "detections")


@dataclass(frozen=True)
class ExportSettings:
    """Options of an export."""

    format: str = "onnx"
    """Kind of file: {secateur.deploy.exporters}; several separated by commas. yolov5 is a .pt that YOLOv5 itself
    loads."""
    precision: str = "fp32"
    """fp32, fp16, or int8 (quantised on your images)."""
    output: str = "decoded"
    """decoded (the network's answers: for a detector every box with its scores), raw (the outputs of its last layers),
    or detections (boxes after suppression inside the file)."""
    batch_size: Annotated[int, BATCH] = 1
    """Images in a batch."""
    dynamic: bool = False
    """Leave the number of images in a batch open."""
    any_size: bool = False
    """Leave the height and width of images open."""
    simplify: Advanced[bool] = True
    """Fold constants and drop needless operators (onnxslim)."""
    opset: Advanced[Annotated[int, Between(1, 1000)]] = 17
    """Version of ONNX' operators."""
    accuracy_drop: Advanced[Annotated[float, SHARE]] = 0.0
    """OpenVINO's int8 returns layers to float until mAP50-95 on val drops by at most this (0: never); slow."""
    conf: Advanced[Annotated[float, SHARE]] = 0.25
    """Lowest confidence of a box, for detections."""
    iou: Advanced[Annotated[float, SHARE]] = 0.45
    """Overlap at which a box is removed by a better one of its class, for detections."""
    max_det: Advanced[Annotated[int, Between(1, 100_000)]] = 300
    """Most boxes of an image, for detections."""

    def __post_init__(self) -> None:
        check_ranges(self)
        _ = self.nms
        for name, value, known in (("precision", self.precision, PRECISIONS), ("output", self.output, OUTPUTS)):
            if value not in known:
                raise UserError(f"Unknown {name} {shown(value)} of an export; choose one of {', '.join(known)}.")

    @property
    def nms(self) -> NmsSettings:
        """Which boxes stay where the suppression is inside the file.

        Raises:
            UserError: a value is out of its range.
        """
        return replace(PREDICTION, conf=self.conf, iou=self.iou, max_det=self.max_det)

    def each(self) -> tuple[ExportSettings, ...]:
        """The settings of each format.

        Raises:
            UserError: there is none.
        """
        names = dict.fromkeys(name.strip() for name in self.format.split(",") if name.strip())
        if not names:
            raise UserError("--format names no kind of file; give onnx, for example.")
        return tuple(replace(self, format=name) for name in names)
