"""Evaluation of checkpoints: usable image size, accuracy on a split, agreement, size and sparsity."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

from torch import nn

from secateur.data.config import DataConfig
from secateur.evaluation.cost import count
from secateur.evaluation.metrics import Metrics
from secateur.evaluation.record import DetectionRecord
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import check_image_size
from secateur.families.context import Context, as_one_class, known_data
from secateur.families.family import family_of
from secateur.families.reading import DataSet, Split, evenly
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.graph.inputs import SIDE
from secateur.scores import Scores
from secateur.sizes import ImageSize

logger = logging.getLogger("secateur")

DEFAULT_SIZE = 640
"""px; for checkpoints that do not record their training size."""
AGREED = 64
"""Number of images for measuring an agreement, chosen so that it takes only seconds."""


@overload
def usable_size(checkpoint: Checkpoint, image_size: int) -> int: ...


@overload
def usable_size(checkpoint: Checkpoint, image_size: ImageSize) -> ImageSize: ...


def usable_size(checkpoint: Checkpoint, image_size: ImageSize) -> ImageSize:
    """The image size, or for 0 the size recorded in the checkpoint, rounded up to a multiple of the largest stride.

    Rounding is logged. For a plain module, the size is not rounded; without a size, it is that of its trace inputs.
    """
    if not checkpoint.strides:
        return image_size or checkpoint.image_size or SIDE
    return check_image_size(image_size or checkpoint.image_size or DEFAULT_SIZE, int(max(checkpoint.strides)))


def val_settings(context: Context, **changes: Any) -> ValSettings:
    """Validation settings from a context."""
    return dataclasses.replace(ValSettings(image_size=context.image_size, workers=context.workers), **changes)


def evaluate(
    checkpoint: Checkpoint, context: Context, split: str = "val", settings: ValSettings | None = None
) -> Metrics:
    """Metrics of a checkpoint on a split of the data of the context, on its device.

    Raises:
        UserError: there is no data set, it has no such split, or the checkpoint does not have its classes.
    """
    settings, data = settings or val_settings(context), context.require_data("An evaluation")
    family = family_of(checkpoint)
    family.require("evaluate", "evaluated", "omit --data")
    data = as_one_class(data) if settings.single_cls else known_data(checkpoint, data)
    settings = dataclasses.replace(settings, single_cls=data.one_class)
    network: nn.Module = checkpoint.build().to(context.device)
    metrics: Metrics = family.evaluate(network, family.split(data, split), settings)
    return of_data(metrics, data, split)


ScoresT = TypeVar("ScoresT", bound=Scores)


def of_data(scores: ScoresT, data: DataSet, split: str) -> ScoresT:
    """The scores; their record of detections, if any, names the data set."""
    if not isinstance(scores.detections, DetectionRecord):
        return scores
    root = data.root if isinstance(data, DataConfig) else data.file.parent
    return dataclasses.replace(scores, detections=scores.detections.of_data(data.file, split, root))


def evaluator(split: Split, settings: ValSettings, limit: int | None = None) -> Callable[[Any], Metrics]:
    """A function that evaluates networks on one split, without a progress bar, for the training loop and the cliff
    curve.

    Args:
        limit: number of images, evenly spaced; None: all.
    """
    chosen = evenly(split, limit)

    def measure(network: Any) -> Metrics:
        metrics: Metrics = family_of(network).evaluate(network, chosen, settings, progress=False)
        return metrics

    return measure


def agreement(dense: Checkpoint, checkpoint: Checkpoint, context: Context, *, limit: int = AGREED) -> Scores:
    """Agreement of the outputs of a checkpoint with those of the dense network, on at most `limit` evenly spaced images
    of the context. Labels are not read.

    Raises:
        UserError: there are no images, the dense network finds nothing on them, or the family has no such measure.
    """
    family, images = family_of(checkpoint), context.require_images("An agreement")
    whole, network = (subject.build().to(context.device) for subject in (dense, checkpoint))
    split = evenly(family.split_for(network, images, "train", objects=False), limit)
    scores: Scores = family.agreement(whole, network, split, val_settings(context, workers=0))
    return scores


def describe(checkpoint: Checkpoint, image_size: ImageSize) -> dict[str, Any]:
    """Parameters, GFLOPs at a size, share of zeros and file size: the `model` part of every summary.

    The file size is computed for fp16 tensors, independent of the actual file, so that rows are comparable.
    """
    network = checkpoint.build()
    cost = count(network, image_size)
    parameters = list(network.parameters())
    total = sum(p.numel() for p in parameters)
    zeros = sum(int((p == 0).sum()) for p in parameters)
    tensors = checkpoint.tensors.values()
    values = sum(t.numel() * (2 if t.is_floating_point() else t.element_size()) for t in tensors)
    return {
        "parameters": cost.parameters,
        "gflops": cost.flops / 1e9,
        "sparsity": zeros / total,
        "file_mb": (values + sum(-(-mask.numel() // 8) for mask in checkpoint.masks.values())) / 1e6,
    }


def size_of(file: Path) -> float | None:
    """Size of a file in megabytes (10^6 bytes); None if it does not exist."""
    return file.stat().st_size / 1e6 if file.is_file() else None
