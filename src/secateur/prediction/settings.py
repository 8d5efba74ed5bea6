"""The options of a prediction: the one place of their defaults (imports no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from secateur.evaluation.settings import PREDICTION, NmsSettings
from secateur.ranges import SHARE, Advanced, Between, check_ranges


@dataclass(frozen=True)
class BoxSettings:
    """Which boxes are kept."""

    conf: Annotated[float, SHARE] = PREDICTION.conf
    """Lowest confidence of a box."""
    iou: Annotated[float, SHARE] = PREDICTION.iou
    """Overlap at which a box is removed by a better one of its class."""
    max_det: Advanced[Annotated[int, Between(1, 100_000)]] = PREDICTION.max_det
    """Most boxes of an image."""
    classes: tuple[str, ...] = ()
    """Keep boxes of these classes only: ids or names, as in --classes 0 2 or --classes person."""
    agnostic: Advanced[bool] = False
    """Boxes of different classes remove each other too."""

    def __post_init__(self) -> None:
        self.nms()

    def nms(self) -> NmsSettings:
        """The settings of the suppression.

        Raises:
            UserError: a number that makes no sense.
        """
        return NmsSettings(self.conf, self.iou, self.max_det, self.agnostic, multi_label=PREDICTION.multi_label)


@dataclass(frozen=True)
class ReadSettings:
    """How videos and streams are read."""

    vid_stride: Annotated[int, Between(1, 1_000_000)] = 1
    """Read every N-th frame of videos and streams."""
    timeout: Annotated[float, Between(0.001, 86_400)] = 10.0
    """Seconds to wait for a URL to answer."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DrawSettings:
    """How boxes are drawn."""

    line_thickness: Annotated[int, Between(0, 1000)] = 0
    """Pixels of the lines (0: by the size of the image)."""
    hide_labels: bool = False
    """Draw boxes without their names."""
    hide_conf: bool = False
    """Draw names without the confidence."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class WriteSettings:
    """What is written."""

    save: bool = True
    """Save images and videos with the boxes drawn."""
    save_txt: bool = False
    """Write a label file in YOLO's format for each image or frame with a detection."""
    save_conf: bool = False
    """Add the confidence to these files as a sixth column."""
    save_crop: bool = False
    """Save the content of each box as an image."""
    save_json: bool = False
    """Write predictions.jsonl: a line of JSON for each image or frame."""

    def anything(self) -> bool:
        """Whether a folder is needed."""
        return self.save or self.save_txt or self.save_crop or self.save_json
