"""The check of every exported file: what it gives, opened as its user opens it, beside what the detector gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import Runtime
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.evaluation.latency import random_images
from secateur.evaluation.predictor import AnswerError, Predictor

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "int8": 0.15}
"""Largest differences by precision: absolute for scores, relative to max(1 px, |value|) for boxes; in int8 the mean
difference of the scores of what the detector sees in the pictures (`seen_error`)."""
SEEN = 0.25
"""Confidence from which something is seen."""


def checked(source: Source, runtime: Runtime, file: Path, path: Path, settings: ExportSettings, rows: Path) -> float:
    """How far a file is from its detector, when that is near enough.

    Args:
        file: where it lies now.
        path: where it is to be, for sentences.
        rows: for a file with the suppression inside, the same without it: boxes are compared by those of its rows,
            since rounding alone decides between boxes that are equally good.

    Raises:
        UserError: it cannot be run, or differs by more than its precision explains.
    """
    cpu = torch.device("cpu")
    predictor = runtime.open(rows, cpu, 0, "fp32")
    images = probes(3 if settings.dynamic else settings.batch_size, source.channels, source.size)
    int8 = settings.precision == "int8"
    try:
        error = seen_error(source, predictor) if int8 else output_error(source, predictor, images)
        if rows != file:
            error = max(error, detections_error(predictor, runtime.open(file, cpu, 0, "fp32"), images, settings))
    except AnswerError:
        error = float("inf")
    check_outputs(error, settings.precision, runtime.title, path)
    return error


def probes(batch: int, channels: int, size: tuple[int, int]) -> list[Tensor]:
    """Inputs [B, C, H, W] float32 in 0..1: one of noise and one of shapes and gradients."""
    height, width = size
    picture = torch.linspace(0, 1, width).expand(batch, channels, height, width).clone()
    picture[:, 0, height // 4 : height // 2, width // 4 : width // 2] = 1
    picture[:, -1, height // 2 :, width // 3 :] *= torch.linspace(1, 0, height - height // 2)[:, None]
    return [random_images(size, batch, channels), picture]


def output_error(source: Source, predictor: Predictor, images: Sequence[Tensor]) -> float:
    """The largest difference of decoded rows: absolute for scores, relative to max(1 px, |value|) for boxes.

    Args:
        images: inputs [B, C, H, W] in 0..1 to compare on.
    """
    assert isinstance(predictor, FilePredictor)
    worst = 0.0
    for batch in images:
        with torch.inference_mode():
            expected = source.detector.predict(batch).double()
        if not bool(torch.isfinite(expected).all()):
            raise UserError(
                "The detector itself gives NaN or infinite values, so no file of it can be checked; its weights are "
                "broken, or too large: take another checkpoint."
            )
        found = [rows.double() for rows in predictor.rows(batch, -1.0)]
        if [rows.shape for rows in found] != [rows.shape for rows in expected]:
            return float("inf")
        worst = max(worst, _difference(torch.stack(found), expected))
    return worst


def detections_error(
    rows: Predictor, detections: Predictor, images: Sequence[Tensor], settings: ExportSettings
) -> float:
    """The largest difference between the boxes that stay of a file's rows and those that the other file gives."""
    assert isinstance(detections, FilePredictor)
    worst = 0.0
    for batch in images:
        expected = rows.predict(batch, settings.nms)
        for found, boxes in zip(torch.from_numpy(detections.outputs(batch)[0]), expected, strict=True):
            if int((found[:, 4] > 0).sum()) != len(boxes):
                return float("inf")
            worst = max(worst, _difference(found[: len(boxes)].double(), boxes.double()))
    return worst


def seen_error(source: Source, predictor: Predictor, most: int = 16) -> float:
    """Mean difference of confidence over the rows in which the detector sees something in the calibration pictures.

    0 where it sees nothing; infinite where an output is not finite.
    """
    assert isinstance(predictor, FilePredictor)
    differences = [torch.zeros(0)]
    for picture in source.pictures[:most]:
        image = picture[None].float() / 255
        with torch.inference_mode():
            expected = source.detector.predict(image)[0]
        found = predictor.rows(image, -1.0)[0]
        if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
            return float("inf")
        before, after = (rows[:, 4] * rows[:, 5:].amax(1) for rows in (expected, found))
        differences.append((after - before).abs()[before >= SEEN])
    seen = torch.cat(differences)
    return float(seen.mean()) if len(seen) else 0.0


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of [..., 4 + n] values; infinite where one is not finite, which max() would hide."""
    scale = torch.ones_like(expected)
    scale[..., :4] = expected[..., :4].abs().clamp(min=1)
    difference = (found - expected).abs() / scale
    if not difference.numel():
        return 0.0
    return float(difference.max()) if bool(torch.isfinite(difference).all()) else float("inf")


def check_outputs(error: float, precision: str, runtime: str, path: Path) -> None:
    """UserError when a file's outputs differ from the detector's by more than `TOLERANCE`."""
    allowed = TOLERANCE[precision]
    if not error <= allowed:
        raise UserError(
            f"In {runtime} the file differs from the detector by {error:.2g} (allowed in {precision}: {allowed:g}), so "
            f"{path} was not written; try other options, such as another --opset or --no-simplify, or another format."
        )
