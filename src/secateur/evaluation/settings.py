"""The options of suppression and validation: the one place of their defaults (imports no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from secateur.errors import UserError
from secateur.ranges import BATCH, PIXELS, SHARE, WORKERS, Advanced, Between, check_ranges
from secateur.sizes import ImageSize

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class NmsSettings:
    """Which boxes are kept. The defaults suit validation, which needs the whole precision-recall curve."""

    conf: Annotated[float, SHARE] = 0.001
    """Lowest confidence of a box."""
    iou: Annotated[float, SHARE] = 0.6
    """Overlap at which a box is removed by a better one of its class."""
    max_det: Advanced[Annotated[int, Between(1, 100_000)]] = 300
    """Most boxes of an image."""
    agnostic: Advanced[bool] = False
    """Boxes of different classes remove each other too."""
    multi_label: Advanced[bool] = True
    """Keep a box once for each class whose confidence suffices, not only for its best class."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.conf == 1:
            raise UserError("--conf is 1, and no box is that sure; give a number below 1.")


# What a person wants to see in an image: YOLOv5's settings of detect.py.
PREDICTION = NmsSettings(conf=0.25, iou=0.45, max_det=1000, multi_label=False)


@dataclass(frozen=True)
class ValSettings:
    """Options of a validation."""

    image_size: Annotated[ImageSize, PIXELS] = 0
    """Longest side of the network's input in pixels, or height and width of every input, rounded up to multiples of the
    largest stride (0: the size that the network takes where it takes only one, else 640)."""
    batch_size: Annotated[int, Between(0, BATCH.most)] = 0
    """Images in a batch (0: sized for the cache on CPU, 32 on a GPU)."""
    nms: NmsSettings = NmsSettings()
    single_cls: bool = False
    """Treat all classes as one."""
    workers: Annotated[int, WORKERS] = 2
    """Processes that load images."""
    coco: bool = False
    """Also compute COCO's twelve AP/AR numbers."""
    plots: bool = False
    """Also keep PR curves and the confusion matrix."""
    detections: bool = False
    """Also keep every detection, from which networks are compared."""
    save_json: bool = False
    """Also write the detections as COCO JSON."""
    coco91: bool = False
    """Write COCO's own category ids (1 to 90) into that JSON, for its official evaluation."""
    rectangular: bool = True
    """Pad images to the shape of their batch instead of to a square; height and width are one shape for all."""
    order: Literal["stable", "stock"] = "stable"
    """Order of images of equal aspect ratio, which decides who shares a padded shape: stable keeps the data set's;
    stock takes numpy's unstable sort, as published figures did, and depends on the processor (by some .003 AP)."""

    def __post_init__(self) -> None:
        check_ranges(self)
