"""Opens a detector, from a checkpoint or an exported file, with a usable image size."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from secateur.deploy.runtimes import open_predictor, runtime_of
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.validate import check_image_size
from secateur.families.evaluation import DEFAULT_SIZE
from secateur.families.family import predictor_of
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.sizes import ImageSize, in_words, sides_of

logger = logging.getLogger("secateur")


def open_detector(
    model: Checkpoint | Predictor | str | Path, device: torch.device, precision: str = "fp32", image_size: ImageSize = 0
) -> tuple[Predictor, ImageSize]:
    """A predictor, and the image size for it.

    Args:
        model: a checkpoint, a predictor, or a file with one.
        device: device to run on.
        precision: "fp32", "bf16" or "fp16", for checkpoints; exported files have a fixed precision.
        image_size: px of the longest side, or height and width; 0 uses the size that the model requires or stores,
            otherwise 640.

    Returns:
        the predictor, and the side, or height and width, in pixels. If the predictor accepts only one size, that size.

    Raises:
        UserError: the file cannot be opened.
    """
    remembered: int | None = None
    if isinstance(model, str | Path) and not runtime_of(model).exported:
        model = load_checkpoint(model)
    if isinstance(model, Checkpoint):
        remembered = model.image_size
        predictor: Predictor = predictor_of(model, device, precision)
    else:
        predictor = open_predictor(model, device, 0, precision) if isinstance(model, str | Path) else model
    only = predictor.image_size
    if only is None:
        wanted = image_size or remembered or DEFAULT_SIZE
        return predictor, check_image_size(wanted, int(max(predictor.strides))) if predictor.strides else wanted
    if image_size not in (0, only, only if isinstance(only, int) else max(only)):
        given = in_words(image_size)
        logger.warning(
            "Image size %s is ignored: this file accepts only images of %d x %d pixels.", given, *sides_of(only)
        )
    return predictor, only
