"""The options of a prediction and their defaults. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from secateur.evaluation.settings import PREDICTION, NmsSettings
from secateur.ranges import SHARE, Advanced, Between, check_ranges


@dataclass(frozen=True)
class BoxSettings:
    """Options that select boxes."""

    conf: Annotated[float, SHARE] = PREDICTION.conf
    """Confidence threshold."""
    iou: Annotated[float, SHARE] = PREDICTION.iou
    """IoU threshold of non-maximum suppression."""
    max_det: Advanced[Annotated[int, Between(1, 100_000)]] = PREDICTION.max_det
    """Maximum number of boxes per image."""
    classes: tuple[str, ...] = ()
    """Keep only boxes of these classes: ids or names, as in --classes 0 2 or --classes person."""
    agnostic: Advanced[bool] = False
    """Class-agnostic: boxes of different classes suppress each other too."""

    def __post_init__(self) -> None:
        self.nms()

    def nms(self) -> NmsSettings:
        """Settings of non-maximum suppression.

        Raises:
            UserError: a value is out of range.
        """
        return NmsSettings(self.conf, self.iou, self.max_det, self.agnostic, multi_label=PREDICTION.multi_label)


@dataclass(frozen=True)
class ReadSettings:
    """Options for reading videos and streams."""

    vid_stride: Annotated[int, Between(1, 1_000_000)] = 1
    """Process every N-th frame of videos and streams."""
    timeout: Annotated[float, Between(0.001, 86_400)] = 10.0
    """Seconds to wait for a URL."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DrawSettings:
    """Options for drawing boxes."""

    line_thickness: Annotated[int, Between(0, 1000)] = 0
    """Line width in pixels (0: from the image size)."""
    hide_labels: bool = False
    """Draw boxes without class names."""
    hide_conf: bool = False
    """Draw class names without the confidence."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class WriteSettings:
    """Options for output files."""

    save: bool = True
    """Save images and videos with the boxes drawn."""
    save_txt: bool = False
    """Write a YOLO label file for each image or frame with a detection."""
    save_conf: bool = False
    """Add the confidence as a sixth column to these label files."""
    save_crop: bool = False
    """Save each box as a cropped image."""
    save_json: bool = False
    """Write predictions.jsonl with one JSON line per image or frame."""

    def anything(self) -> bool:
        """Whether any output file is requested."""
        return self.save or self.save_txt or self.save_crop or self.save_json
