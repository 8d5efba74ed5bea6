"""The options of an export and their defaults. Imports no torch."""

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
    """File formats: {secateur.deploy.exporters}; several separated by commas. yolov5 writes a .pt file that YOLOv5
    itself loads.
    """
    precision: str = "fp32"
    """Precision: fp32, fp16, or int8 (calibrated on your images)."""
    output: str = "decoded"
    """Output of the file: decoded (the network's outputs; for a detector every box with its scores), raw (the outputs
    of the last layers), or detections (boxes after non-maximum suppression inside the file).
    """
    batch_size: Annotated[int, BATCH] = 1
    """Images per batch."""
    dynamic: bool = False
    """Make the batch dimension dynamic."""
    any_size: bool = False
    """Make image height and width dynamic."""
    simplify: Advanced[bool] = True
    """Fold constants and remove redundant operators (onnxslim)."""
    opset: Advanced[Annotated[int, Between(1, 1000)]] = 17
    """ONNX opset version."""
    accuracy_drop: Advanced[Annotated[float, SHARE]] = 0.0
    """For OpenVINO int8: keep layers in floating point until mAP50-95 on val drops by at most this value (0: no limit).
    Slow.
    """
    conf: Advanced[Annotated[float, SHARE]] = 0.25
    """Confidence threshold, for --output detections."""
    iou: Advanced[Annotated[float, SHARE]] = 0.45
    """IoU threshold of non-maximum suppression, for --output detections."""
    max_det: Advanced[Annotated[int, Between(1, 100_000)]] = 300
    """Maximum number of boxes per image, for --output detections."""

    def __post_init__(self) -> None:
        check_ranges(self)
        _ = self.nms
        for name, value, known in (("precision", self.precision, PRECISIONS), ("output", self.output, OUTPUTS)):
            if value not in known:
                raise UserError(f"Unknown {name} {shown(value)} of an export; choose one of {', '.join(known)}.")

    @property
    def nms(self) -> NmsSettings:
        """Settings of non-maximum suppression inside the file.

        Raises:
            UserError: a value is out of range.
        """
        return replace(PREDICTION, conf=self.conf, iou=self.iou, max_det=self.max_det)

    def each(self) -> tuple[ExportSettings, ...]:
        """The settings of each format.

        Raises:
            UserError: no format is given.
        """
        names = dict.fromkeys(name.strip() for name in self.format.split(",") if name.strip())
        if not names:
            raise UserError("--format is empty. Give at least one format, for example onnx.")
        return tuple(replace(self, format=name) for name in names)
