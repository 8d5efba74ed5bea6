"""The options of non-maximum suppression and validation, and their defaults. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from secateur.errors import UserError
from secateur.ranges import BATCH, PIXELS, SHARE, WORKERS, Advanced, Between, check_ranges
from secateur.sizes import ImageSize

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class NmsSettings:
    """Options of non-maximum suppression. The defaults suit validation, which needs the complete precision-recall
    curve.
    """

    conf: Annotated[float, SHARE] = 0.001
    """Confidence threshold."""
    iou: Annotated[float, SHARE] = 0.6
    """IoU threshold of non-maximum suppression."""
    max_det: Advanced[Annotated[int, Between(1, 100_000)]] = 300
    """Maximum number of boxes per image."""
    agnostic: Advanced[bool] = False
    """Class-agnostic: boxes of different classes suppress each other too."""
    multi_label: Advanced[bool] = True
    """Keep a box once per class above the confidence threshold, instead of only for its best class."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.conf == 1:
            raise UserError("--conf is 1, which no box exceeds. Give a number below 1.")


# Defaults of YOLOv5's detect.py, for images that a person looks at.
PREDICTION = NmsSettings(conf=0.25, iou=0.45, max_det=1000, multi_label=False)


@dataclass(frozen=True)
class ValSettings:
    """Options of a validation."""

    image_size: Annotated[ImageSize, PIXELS] = 0
    """Longest side of the network's input in pixels, or height and width of every input; rounded up to a multiple of
    the largest stride (0: the size that the network requires, otherwise 640).
    """
    batch_size: Annotated[int, Between(0, BATCH.most)] = 0
    """Images per batch (0: chosen to fit the CPU cache, or 32 on a GPU)."""
    nms: NmsSettings = NmsSettings()
    single_cls: bool = False
    """Treat all classes as one."""
    workers: Annotated[int, WORKERS] = 2
    """Processes that load images."""
    coco: bool = False
    """Also compute COCO's twelve AP and AR metrics."""
    plots: bool = False
    """Also collect PR curves and the confusion matrix."""
    detections: bool = False
    """Also collect every detection, for comparisons between networks."""
    save_json: bool = False
    """Also write the detections as COCO JSON."""
    coco91: bool = False
    """Use COCO's category ids (1 to 90) in this JSON file, as the official COCO evaluation expects."""
    rectangular: bool = True
    """Pad images to the shape of their batch instead of a square. Ignored if height and width are given."""
    order: Literal["stable", "stock"] = "stable"
    """Order of images with equal aspect ratio, which determines the padded shapes. stable keeps the order of the data
    set; stock uses NumPy's unstable sort, as in published figures, and depends on the processor (about .003 AP).
    """

    def __post_init__(self) -> None:
        check_ranges(self)
