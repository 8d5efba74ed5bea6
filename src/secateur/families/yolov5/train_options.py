"""Training options that only YOLOv5 has. This file does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from secateur.ranges import Advanced
from secateur.training.own_options import own_options_of


@own_options_of("yolov5")
@dataclass(frozen=True)
class YOLOv5TrainOptions:
    """Preparation of a YOLOv5 training."""

    autoanchor: Advanced[bool] = True
    """Check the anchors against the boxes before training, and evolve better ones if they match too few. If the
    model file gives only a number of anchors, they are always computed."""

    flags: ClassVar[Mapping[str, str]] = {"--noautoanchor": "--no-autoanchor"}

    @staticmethod
    def under_present_names(options: Mapping[str, Any]) -> dict[str, Any]:
        """Converts options of earlier versions, which saved the inverse."""
        result = dict(options)
        if "noautoanchor" in result:
            result["autoanchor"] = not result.pop("noautoanchor")
        return result
