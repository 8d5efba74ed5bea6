"""The options of YOLOv5's trainings beyond those of every training; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.ranges import Advanced
from secateur.training.own_options import own_options_of


@own_options_of("yolov5")
@dataclass(frozen=True)
class YOLOv5TrainOptions:
    """What precedes the first step of a YOLOv5 training."""

    autoanchor: Advanced[bool] = True
    """Check the anchors against the boxes first, and evolve better ones if they match too few. A model file that gives
    only a number of anchors always has them computed."""

    flags: ClassVar[Mapping[str, str]] = {"--noautoanchor": "--no-autoanchor"}

    @staticmethod
    def under_present_names(options: Mapping[str, Any]) -> dict[str, Any]:
        """Earlier versions saved the opposite."""
        result = dict(options)
        if "noautoanchor" in result:
            result["autoanchor"] = not result.pop("noautoanchor")
        return result
