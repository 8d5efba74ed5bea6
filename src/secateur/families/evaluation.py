"""What is measured and asked: detectors opened at a usable size, their accuracy on a split, size, zeros."""

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
"""px; for weights that do not remember at which size they were trained."""


@overload
def usable_size(checkpoint: Checkpoint, image_size: int) -> int: ...


@overload
def usable_size(checkpoint: Checkpoint, image_size: ImageSize) -> ImageSize: ...


def usable_size(checkpoint: Checkpoint, image_size: ImageSize) -> ImageSize:
    """The image size, or for 0 the one that the checkpoint remembers, rounded up to a multiple of the largest stride.

    A notice says when it is rounded, as YOLOv5 does. Images of a plain module keep their size; without one they are as
    large as those that it is traced with.
    """
    if not checkpoint.strides:
        return image_size or checkpoint.image_size or SIDE
    return check_image_size(image_size or checkpoint.image_size or DEFAULT_SIZE, int(max(checkpoint.strides)))


def val_settings(context: Context, **changes: Any) -> ValSettings:
    """Validation settings of a context."""
    return dataclasses.replace(ValSettings(image_size=context.image_size, workers=context.workers), **changes)


def evaluate(
    checkpoint: Checkpoint, context: Context, split: str = "val", settings: ValSettings | None = None
) -> Metrics:
    """Metrics of a checkpoint on a split of the context's data, on its device.

    Raises:
        UserError: there is no data set, it has no such split, or the checkpoint does not know its classes.
    """
    settings, data = settings or val_settings(context), context.require_data("An evaluation")
    family = family_of(checkpoint)
    family.require("evaluate", "evaluated", "give no --data")
    data = as_one_class(data) if settings.single_cls else known_data(checkpoint, data)
    settings = dataclasses.replace(settings, single_cls=data.one_class)
    network: nn.Module = checkpoint.build().to(context.device)
    metrics: Metrics = family.evaluate(network, family.split(data, split), settings)
    return of_data(metrics, data, split)


ScoresT = TypeVar("ScoresT", bound=Scores)


def of_data(scores: ScoresT, data: DataSet, split: str) -> ScoresT:
    """The scores, whose record of detections, if they have one, names the data set."""
    if not isinstance(scores.detections, DetectionRecord):
        return scores
    root = data.root if isinstance(data, DataConfig) else data.file.parent
    return dataclasses.replace(scores, detections=scores.detections.of_data(data.file, split, root))


def evaluator(split: Split, settings: ValSettings, limit: int | None = None) -> Callable[[Any], Metrics]:
    """A function that measures networks on one split, without a progress bar: for the loop and the cliff curve.

    Args:
        limit: measure only so many images, spread evenly.
    """
    chosen = evenly(split, limit)

    def measure(network: Any) -> Metrics:
        metrics: Metrics = family_of(network).evaluate(network, chosen, settings, progress=False)
        return metrics

    return measure


def describe(checkpoint: Checkpoint, image_size: ImageSize) -> dict[str, Any]:
    """Parameters, GFLOPs at a size, share of zeros, file size: the `model` part of every summary.

    The size is that of the tensors in fp16, whatever the file at hand holds, so that rows compare like with like.
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
    """Megabytes (10^6 bytes) of a file; None where there is none."""
    return file.stat().st_size / 1e6 if file.is_file() else None
