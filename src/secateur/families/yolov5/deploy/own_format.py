"""YOLOv5's own `.pt`, which unmodified ultralytics/yolov5 (v6.0 to v7.0) loads: any widths, and none of its code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from secateur.families.yolov5.formats.upstream_writer import write_upstream
from secateur.families.yolov5.model import Detector

CANNOT_TRAIN = (
    "YOLOv5's val.py, detect.py and export.py take this file; its train.py does not keep the cut: it builds a network "
    "anew from a YAML, which has no words for the widths inside a block. Train with secateur finetune."
)


def write_own(detector: Detector, file: Path, image_size: int) -> str:
    """Writes the file, in fp16 where that loses nothing; our reader opens it like any other checkpoint.

    Returns:
        what to know of the file of a cut detector; "" for others.
    """
    write_upstream(detector, file, image_size, torch.float16 if _fits_half(detector) else torch.float32)
    return CANNOT_TRAIN if _is_cut(detector) else ""


def _fits_half(detector: Detector) -> bool:
    """Whether float16 holds its tensors without loss, as it does those of a training's final files."""
    return all(torch.equal(tensor.half().float(), tensor.float()) for tensor in detector.state_dict().values())


def _is_cut(detector: Detector) -> bool:
    """Whether it has other widths than its topology says."""
    with torch.device("meta"):
        designed: nn.Module = Detector(detector.topology)
    shapes = {name: tensor.shape for name, tensor in designed.state_dict().items()}
    return shapes != {name: tensor.shape for name, tensor in detector.state_dict().items()}
