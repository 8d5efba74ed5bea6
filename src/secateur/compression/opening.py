"""Anything that detects, opened to be asked: a checkpoint, a file that some runtime runs, or what is open already."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from secateur.compression.measuring import DEFAULT_SIZE
from secateur.deploy.runtimes import open_predictor, runtime_of
from secateur.detector.checkpoint import Checkpoint, load_checkpoint
from secateur.evaluation.predictor import Predictor, TorchPredictor
from secateur.evaluation.validate import check_image_size

logger = logging.getLogger("secateur")


def open_detector(
    model: Checkpoint | Predictor | str | Path, device: torch.device, precision: str = "fp32", image_size: int = 0
) -> tuple[Predictor, int | tuple[int, int]]:
    """A predictor, and the size of the images that it is to be given.

    Args:
        model: a checkpoint, a predictor, or the file of one.
        device: where it should run.
        precision: "fp32", "bf16" or "fp16", for checkpoints; an exported file has its own.
        image_size: px of the longest side; 0 takes what the model takes or remembers, else 640.

    Returns:
        the predictor, and the side, or height and width, in pixels: where the predictor takes one size alone, that.

    Raises:
        UserError: the file cannot be opened.
    """
    remembered: int | None = None
    if isinstance(model, str | Path) and not runtime_of(model).exported:
        model = load_checkpoint(model)
    if isinstance(model, Checkpoint):
        remembered = model.image_size
        model = TorchPredictor(model.detector().to(device), precision)
    predictor = open_predictor(model, device, 0, precision) if isinstance(model, str | Path) else model
    only = predictor.image_size
    if only is None:
        wanted = image_size or remembered or DEFAULT_SIZE
        return predictor, check_image_size(wanted, int(max(predictor.strides)))
    if image_size not in (0, only, only if isinstance(only, int) else max(only)):
        height, width = (only, only) if isinstance(only, int) else only
        logger.warning("Image size %d: this file takes images of %d x %d pixels alone.", image_size, height, width)
    return predictor, only
