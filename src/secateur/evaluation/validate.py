"""Validation: a detector over a data set, from images to metrics."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from secateur.data.batches import EvaluationBatches
from secateur.data.dataset import Batch, DetectionDataset
from secateur.data.index import Index
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.evaluation.matching import Boxes
from secateur.evaluation.metrics import Metrics, measure
from secateur.evaluation.nms import non_max_suppression
from secateur.evaluation.predictions import COCO91, save_predictions

logger = logging.getLogger("secateur")

_CACHE_PIXELS = 4 * 640 * 640  # batches of this size keep a small detector's activations in a CPU's cache
_SHAPE_GROUP = 32  # images that share one rectangular shape
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ValSettings:
    """Options of a validation.

    Attributes:
        image_size: longest side of the network's input in pixels; rounded up to a multiple of the largest stride.
        batch_size: images a batch; 0 chooses: sized for the cache on CPU, 32 on CUDA.
        conf: lowest score of a detection.
        iou: overlap at which non-maximum suppression removes a box.
        max_det: most detections of an image.
        half: fp16 on CUDA (the same as precision "fp16").
        precision: "fp32", "bf16" or "fp16" (the latter on CUDA only).
        single_cls: treat all classes as one.
        workers: processes that read images.
        coco: also compute COCO's twelve numbers.
        coco91: write COCO's own category ids into `save_json`.
        save_json: COCO results file to write.
        plots: also keep curves and the confusion matrix.
        rectangular: pad batches to their images' shape instead of to a square.
    """

    image_size: int = 640
    batch_size: int = 0
    conf: float = 0.001
    iou: float = 0.6
    max_det: int = 300
    half: bool = False
    precision: str = "fp32"
    single_cls: bool = False
    workers: int = 2
    coco: bool = False
    coco91: bool = False
    save_json: Path | None = None
    plots: bool = False
    rectangular: bool = True


class _Advance(Protocol):
    def __call__(self) -> None: ...


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
    detector: Detector,
    index: Index,
    settings: ValSettings | None = None,
    *,
    progress: bool = True,
    limit: int | None = None,
) -> Metrics:
    """Measures a detector on the images of an index.

    A fused copy in evaluation mode runs, channels_last on CPU, on the device that the detector is on; the detector
    itself and its training flag stay as they are.

    Args:
        detector: what is measured.
        index: images and labels.
        settings: options; None takes the defaults.
        progress: show a bar on standard error.
        limit: measure only that many images, spread evenly over the index.

    Raises:
        UserError: an option is out of range, the index is empty or has class ids that the detector lacks.
    """
    settings = settings or ValSettings()
    index = subset(index, limit)
    _check(detector, index, settings)
    if settings.rectangular:
        # Images of one aspect ratio share padded shapes in numpy's default order, as in the published figures; the data
        # set's own sort is stable and keeps it. (Another order of ties moves AP by some 0.003 on 128 images.)
        index = index.select(np.argsort(index.shapes[:, 0] / index.shapes[:, 1]))
    device = next(detector.parameters()).device
    precision = _precision(settings, device)
    image_size = check_image_size(settings.image_size, int(max(detector.strides)))
    batch_size = settings.batch_size or auto_batch_size(image_size, device)
    network = detector.fused()
    if device.type == "cpu":
        _channels_last_(network)
    batches = _batches(index, settings, image_size, batch_size, int(max(detector.strides)))
    clock = _Clock(device)
    found, shape = _detect(network, batches, settings, precision, clock, progress)
    truths, detections = _truths(index, settings.single_cls), _collect(found, settings.single_cls)
    if settings.save_json is not None:
        save_predictions(settings.save_json, detections, index.files, COCO91 if settings.coco91 else None)
    names = {0: "object"} if settings.single_cls and detector.nc > 1 else detector.names
    shapes = index.shapes.astype(np.int64)
    metrics = measure(
        truths, detections, shapes, names, max_det=settings.max_det, coco=settings.coco, curves=settings.plots
    )
    speed = {phase: 1000 * seconds / max(len(found), 1) for phase, seconds in clock.seconds.items()}
    return dataclasses.replace(metrics, speed_ms=speed, shape=shape)


def _detect(
    network: Detector,
    batches: EvaluationBatches,
    settings: ValSettings,
    precision: torch.dtype,
    clock: _Clock,
    progress: bool,
) -> tuple[list[tuple[int, Tensor]], tuple[int, ...]]:
    """Image number and rows [n, 6] in pixels of the original for every image, and the shape of the largest batch."""
    shape: tuple[int, ...] = ()
    found: list[tuple[int, Tensor]] = []
    with _bar(len(batches), progress) as advance:
        for batch in batches:
            with clock.phase("preprocess"):
                images = _prepare(batch.images, clock.device)
            with clock.phase("inference"):
                predictions = predict(network, images, precision, settings.conf)
            with clock.phase("nms"):
                kept = non_max_suppression(
                    predictions, settings.conf, settings.iou, settings.max_det, agnostic=settings.single_cls
                )
            found += zip(batch.indices, _to_original(kept, batch), strict=True)
            shape = max(shape, tuple(images.shape))
            advance()
    return found, shape


def predict(
    network: Detector, images: Tensor, precision: torch.dtype = torch.float32, conf: float = 0.001
) -> list[Tensor]:
    """Of each image in [B, 3, H, W] (floats in 0..1) the decoded rows [n, 5 + nc] with objectness above `conf`, fp32.

    Below fp32 the network runs under autocast.
    """
    with (
        torch.inference_mode(),
        torch.autocast(images.device.type, dtype=precision, enabled=precision is not torch.float32),
    ):
        raw = network(images)
    with torch.inference_mode():
        return network.decode_above(raw, conf)


def check_image_size(size: int, stride: int) -> int:
    """The smallest multiple of the stride that is at least `size`, with a notice when it differs.

    Raises:
        UserError: `size` is not positive.
    """
    if size < 1:
        raise UserError(f"The image size must be a positive number of pixels, not {size}.")
    rounded = max(-(-size // stride) * stride, 2 * stride)
    if rounded != size:
        logger.warning("Image size %d is not a usable multiple of the stride %d: taking %d.", size, stride, rounded)
    return rounded


def auto_batch_size(image_size: int, device: torch.device) -> int:
    """Images a batch: 32 on an accelerator; on CPU the power of two that suits the cache (4 at 640 px)."""
    if device.type != "cpu":
        return 32
    size = 1
    while size < 32 and 2 * size * image_size**2 <= _CACHE_PIXELS:
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
        raise UserError(f"The number of images to validate must be positive, not {limit}.")
    return index.select(np.linspace(0, len(index.files) - 1, limit).round().astype(np.int64))


def _check(detector: Detector, index: Index, settings: ValSettings) -> None:
    if not index.files:
        raise UserError("There are no images to validate on; check the data set's YAML file.")
    if not 0 <= settings.conf < 1 or not 0 <= settings.iou <= 1 or settings.max_det < 1 or settings.batch_size < 0:
        raise UserError(
            f"conf ({settings.conf}) and iou ({settings.iou}) must lie between 0 and 1, max_det ({settings.max_det}) "
            f"must be positive and batch_size ({settings.batch_size}) must not be negative."
        )
    if len(index.labels) and not settings.single_cls and index.labels[:, 0].max() >= detector.nc:
        raise UserError(
            f"The labels use class id {int(index.labels[:, 0].max())} but the detector knows {detector.nc} classes "
            f"(0 to {detector.nc - 1}); validate with the data set that it was trained on."
        )


def _precision(settings: ValSettings, device: torch.device) -> torch.dtype:
    name = "fp16" if settings.half else settings.precision
    if name not in _PRECISIONS:
        raise UserError(f"Unknown precision {name!r}; choose one of {', '.join(_PRECISIONS)}.")
    if name == "fp16" and device.type == "cpu":
        logger.warning("fp16 needs CUDA: validating in fp32.")
        name = "fp32"
    return _PRECISIONS[name]


def _batches(index: Index, settings: ValSettings, image_size: int, batch_size: int, stride: int) -> EvaluationBatches:
    # Images share rectangular shapes in groups of a fixed size, so metrics do not depend on the batch that suits a CPU.
    group = _SHAPE_GROUP if _SHAPE_GROUP % batch_size == 0 else batch_size
    dataset = DetectionDataset(
        index, image_size, rectangular=settings.rectangular, batch_size=group, stride=stride, pad=0.5
    )
    return EvaluationBatches(dataset, batch_size, settings.workers, pin=torch.cuda.is_available())


def _channels_last_(network: Detector) -> None:
    """Lays the weights of convolutions out channels_last, in place."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _prepare(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in 0..1 on the device, channels_last on CPU."""
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    return images.to(device, non_blocking=True).to(torch.float32, memory_format=layout).div_(255)


def _to_original(kept: list[Tensor], batch: Batch) -> list[Tensor]:
    """Boxes from the padded network image to pixels of the original image, clipped to it."""
    results = []
    for rows, (height, width), ((ratio_h, ratio_w), (pad_w, pad_h)) in zip(
        kept, batch.original_shapes, batch.ratio_pads, strict=True
    ):
        rows = rows.cpu()
        rows[:, 0:4:2] = ((rows[:, 0:4:2] - pad_w) / ratio_w).clamp_(0, width)
        rows[:, 1:4:2] = ((rows[:, 1:4:2] - pad_h) / ratio_h).clamp_(0, height)
        results.append(rows)
    return results


def _truths(index: Index, single_cls: bool) -> Boxes:
    """The index' labels as boxes in pixels."""
    image = np.repeat(np.arange(len(index.files)), np.diff(index.offsets))
    labels = index.labels.astype(np.float64)
    sizes = index.shapes[image][:, ::-1].astype(np.float64)
    centres, half = labels[:, 1:3] * sizes, labels[:, 3:5] * sizes / 2
    classes = labels[:, 0].astype(np.int64) * (0 if single_cls else 1)
    return Boxes(image, np.concatenate((centres - half, centres + half), axis=1), classes, np.ones(len(labels)))


def _collect(found: list[tuple[int, Tensor]], single_cls: bool) -> Boxes:
    """Rows [n, 6] of each image as flat arrays, in the order of the images."""
    found = sorted(found, key=lambda item: item[0])
    image = np.repeat([i for i, _ in found], [len(rows) for _, rows in found]).astype(np.int64)
    rows = torch.cat([rows for _, rows in found]).numpy().astype(np.float64)
    return Boxes(image, rows[:, :4], rows[:, 5].astype(np.int64) * (0 if single_cls else 1), rows[:, 4])


@contextmanager
def _bar(total: int, show: bool) -> Iterator[_Advance]:
    """A progress bar on standard error that disappears when done."""
    columns = (TextColumn("validating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not show) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
