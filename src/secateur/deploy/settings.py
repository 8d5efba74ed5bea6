"""The options of an export: the one place of their defaults (imports no torch)."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import UserError


@dataclass(frozen=True)
class ExportSettings:
    """Options of an export."""

    format: str = "onnx"
    """Kind of file: onnx, or yolov5 (a .pt that YOLOv5 itself loads)."""
    batch_size: int = 1
    """Images in a batch."""
    dynamic: bool = False
    """Leave the number of images in a batch open."""
    simplify: bool = True
    """Fold constants and drop needless operators (onnxslim)."""
    opset: int = 17
    """Version of ONNX' operators."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"The batch of an export must be at least 1, not {self.batch_size}.")
