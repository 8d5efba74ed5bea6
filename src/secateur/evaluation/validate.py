"""Validation: evaluates a predictor on a data set."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from secateur.data.batches import EvaluationBatches
from secateur.data.dataset import Batch, DetectionDataset
from secateur.data.index import Index
from secateur.errors import UserError
from secateur.evaluation.coco import COCO91, save_predictions
from secateur.evaluation.matching import Boxes
from secateur.evaluation.metrics import Metrics, measure
from secateur.evaluation.predictor import AnswerError, Predictor
from secateur.evaluation.record import DetectionRecord
from secateur.evaluation.settings import ValSettings
from secateur.sizes import ImageSize, Sides, in_words, sides_of
from secateur.terminal import bar

logger = logging.getLogger("secateur")

_CACHE_PIXELS = 4 * 640 * 640  # pixels per batch that keep a small detector's activations in a CPU's cache
_SHAPE_GROUP = 32  # images that share one rectangular shape
_USUAL_SIZE = 640  # px, if neither the settings nor the network define one


@dataclass
class _Clock:
    """Seconds spent in each phase."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: {"preprocess": 0.0, "inference": 0.0, "nms": 0.0})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[name] += self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def validate(
    predictor: Predictor,
    index: Index,
    settings: ValSettings | None = None,
    *,
    folder: Path | None = None,
    progress: bool = True,
    limit: int | None = None,
) -> Metrics:
    """Evaluates a predictor on the images of an index.

    Args:
        predictor: the predictor (a `Family` creates it from a network, `deploy.runtimes` from an exported file).
        index: images and labels.
        settings: options; None uses the defaults.
        folder: folder in which `save_json` writes predictions.json.
        progress: show a progress bar on standard error.
        limit: maximum number of images, spread evenly over the index.

    Raises:
        UserError: the index is empty or has class ids that the predictor lacks, `save_json` has no folder, or the
            predictor's output for an image cannot be boxes.
    """
    settings = settings or ValSettings()
    index = subset(index, limit)
    _check(predictor, index, settings)
    if settings.save_json and folder is None:
        raise UserError("save_json needs a folder for predictions.json. Give one with folder=.")
    if settings.rectangular and settings.order == "stock":
        # The data set's own sort is stable and preserves the order of ties.
        index = index.select(np.argsort(index.shapes[:, 0] / index.shapes[:, 1]))
    clock = _Clock(predictor.device)
    found, shape = _detect(predictor, index, settings, clock, progress)
    truths, detections = objects_of(index, settings.single_cls), _collect(found, settings.single_cls)
    if settings.save_json and folder is not None:
        categories = COCO91 if settings.coco91 else None
        save_predictions(folder / "predictions.json", detections, index.files, categories)
    names = {0: "object"} if settings.single_cls and predictor.nc > 1 else predictor.names
    shapes = index.shapes.astype(np.int64)
    metrics = measure(
        truths, detections, shapes, names, max_det=settings.nms.max_det, coco=settings.coco, curves=settings.plots
    )
    kept = DetectionRecord.of(index.files, index.shapes, truths, detections, names, settings.nms)
    speed = {phase: 1000 * seconds / max(len(found), 1) for phase, seconds in clock.seconds.items()}
    return dataclasses.replace(metrics, speed_ms=speed, shape=shape, detections=kept if settings.detections else None)


def boxes_of(predictor: Predictor, index: Index, settings: ValSettings, *, progress: bool = True) -> Boxes:
    """The predicted boxes for all images of an index, in pixels of the originals, ordered by image.

    Raises:
        UserError: there are no images, or the predictor's output for an image cannot be boxes.
    """
    if not index.files:
        raise UserError("There are no images to predict on. Check the data set.")
    found, _ = _detect(predictor, index, settings, _Clock(predictor.device), progress)
    return _collect(found, settings.single_cls)


def _detect(
    predictor: Predictor, index: Index, settings: ValSettings, clock: _Clock, progress: bool
) -> tuple[list[tuple[int, Tensor]], tuple[int, ...]]:
    """Image number and rows [n, 6] in pixels of the original for every image, and the shape of the largest batch."""
    batches = _batches(index, settings, predictor)
    nms = dataclasses.replace(settings.nms, agnostic=settings.nms.agnostic or settings.single_cls)
    shape: tuple[int, ...] = ()
    found: list[tuple[int, Tensor]] = []
    with _bar(len(batches), progress) as advance:
        for batch in batches:
            with clock.phase("preprocess"):
                images = _prepare(batch.images, predictor.device)
            with clock.phase("inference"):
                try:
                    proposed = predictor.infer(images, nms.conf)
                except AnswerError as error:
                    raise error.named(index.files[batch.indices[error.image]]) from None
            with clock.phase("nms"):
                kept = predictor.boxes(proposed, nms)
            found += zip(batch.indices, _to_original(kept, batch), strict=True)
            shape = max(shape, tuple(images.shape))
            advance()
    return found, shape


@overload
def check_image_size(size: int, stride: int) -> int: ...


@overload
def check_image_size(size: Sides, stride: int) -> Sides: ...


@overload
def check_image_size(size: ImageSize, stride: int) -> ImageSize: ...


def check_image_size(size: ImageSize, stride: int) -> ImageSize:
    """The smallest multiple of the stride that is at least `size`, for both sides if there are two. Logs a notice if it
    differs.

    Raises:
        UserError: `size` is not positive.
    """
    height, width = sides_of(size)
    if min(height, width) < 1:
        raise UserError(f"The image size is {in_words(size)}; it must be a positive number of pixels.")
    up = max(-(-height // stride) * stride, 2 * stride), max(-(-width // stride) * stride, 2 * stride)
    rounded: ImageSize = up[0] if isinstance(size, int) else up
    if rounded != size:
        logger.warning(
            "Image size %s is not a usable multiple of the stride %d: using %s.",
            in_words(size), stride, in_words(rounded),
        )  # fmt: skip
    return rounded


def auto_batch_size(image_size: ImageSize, device: torch.device) -> int:
    """Images per batch: 32 on an accelerator; on a CPU, the power of two that fits its cache (4 at 640 px)."""
    if device.type != "cpu":
        return 32
    size, (height, width) = 1, sides_of(image_size)
    while size < 32 and 2 * size * height * width <= _CACHE_PIXELS:
        size *= 2
    return size


def subset(index: Index, limit: int | None) -> Index:
    """An index of at most `limit` images, spread evenly and always the same; None keeps all.

    Raises:
        UserError: `limit` is not positive.
    """
    if limit is None or limit >= len(index.files):
        return index
    if limit < 1:
        raise UserError(f"The number of images to validate is {limit}; it must be positive.")
    return index.select(np.linspace(0, len(index.files) - 1, limit).round().astype(np.int64))


def _check(predictor: Predictor, index: Index, settings: ValSettings) -> None:
    if not index.files:
        raise UserError("There are no images to validate on. Check the data set's YAML file.")
    if len(index.labels) and not settings.single_cls and index.labels[:, 0].max() >= predictor.nc:
        raise UserError(
            f"The labels contain class id {int(index.labels[:, 0].max())}, but the detector has "
            f"{predictor.nc} classes (0 to {predictor.nc - 1}). Validate on the data set that it was trained "
            "on."
        )


def _batches(index: Index, settings: ValSettings, predictor: Predictor) -> EvaluationBatches:
    stride = int(max(predictor.strides))
    size = _input_size(settings, predictor, stride)
    batch_size = settings.batch_size or auto_batch_size(size, predictor.device)
    # Images share rectangular shapes in groups of a fixed size, so metrics do not depend on the batch size of the CPU.
    group = _SHAPE_GROUP if _SHAPE_GROUP % batch_size == 0 else batch_size
    rectangular = settings.rectangular and isinstance(size, int) and predictor.image_size is None
    dataset = DetectionDataset(
        index,
        size,
        rectangular=rectangular,
        batch_size=group,
        stride=stride,
        pad=0.5,
        channels=predictor.channels,
    )
    return EvaluationBatches(dataset, batch_size, workers=settings.workers, pin=predictor.device.type == "cuda")


def _input_size(settings: ValSettings, predictor: Predictor, stride: int) -> ImageSize:
    """Side, or height and width, of the predictor's input images."""
    only = predictor.image_size
    if only is None:
        return check_image_size(settings.image_size or _USUAL_SIZE, stride)
    if settings.image_size not in (0, only, only if isinstance(only, int) else max(only)):
        given = in_words(settings.image_size)
        logger.warning(
            "Image size %s is ignored: this file accepts only images of %d x %d pixels.", given, *sides_of(only)
        )
    return only


def _prepare(images: Tensor, device: torch.device) -> Tensor:
    """Converts uint8 [B, C, H, W] to float32 in 0..1 on the device, channels_last on CPU."""
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    return images.to(device, non_blocking=True).to(torch.float32, memory_format=layout).div_(255)


def _to_original(kept: list[Tensor], batch: Batch) -> list[Tensor]:
    """Maps boxes, each [n, 6], from the padded network input to pixels of the original image and clips them to it."""
    results = []
    for rows, (height, width), ((ratio_h, ratio_w), (pad_w, pad_h)) in zip(
        kept, batch.original_shapes, batch.ratio_pads, strict=True
    ):
        rows = rows.cpu()
        rows[:, 0:4:2] = ((rows[:, 0:4:2] - pad_w) / ratio_w).clamp_(0, width)
        rows[:, 1:4:2] = ((rows[:, 1:4:2] - pad_h) / ratio_h).clamp_(0, height)
        results.append(rows)
    return results


def objects_of(index: Index, single_cls: bool = False) -> Boxes:
    """The labels of an index as boxes in pixels of the original images, in the same order.

    Args:
        index: images and labels.
        single_cls: treat all objects as class 0.
    """
    image = np.repeat(np.arange(len(index.files)), np.diff(index.offsets))
    labels = index.labels.astype(np.float64)
    sizes = index.shapes[image][:, ::-1].astype(np.float64)
    centres, half = labels[:, 1:3] * sizes, labels[:, 3:5] * sizes / 2
    classes = labels[:, 0].astype(np.int64) * (0 if single_cls else 1)
    return Boxes(image, np.concatenate((centres - half, centres + half), axis=1), classes, np.ones(len(labels)))


def _collect(found: list[tuple[int, Tensor]], single_cls: bool) -> Boxes:
    """Rows [n, 6] of each image as flat arrays, ordered by image."""
    found = sorted(found, key=lambda item: item[0])
    image = np.repeat([i for i, _ in found], [len(rows) for _, rows in found]).astype(np.int64)
    rows = torch.cat([rows for _, rows in found]).numpy().astype(np.float64)
    return Boxes(image, rows[:, :4], rows[:, 5].astype(np.int64) * (0 if single_cls else 1), rows[:, 4])


@contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[], None]]:
    with bar("validating", shown=show) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
