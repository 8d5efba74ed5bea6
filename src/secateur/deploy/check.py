"""The check of every exported file: what it answers, opened as its user opens it, against what the network answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from secateur.deploy.predictor import FilePredictor
from secateur.deploy.runtimes import Runtime
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.evaluation.latency import random_images
from secateur.evaluation.nms import Candidates
from secateur.evaluation.predictor import AnswerError, Predictor
from secateur.families.loading import load_checkpoint
from secateur.families.outputs import tensors_of

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "int8": 0.15}
"""Largest differences by precision: relative to max(1, |value|), and so absolute for scores; for int8 see
`seen_error`."""
SEEN = 0.25
"""Confidence from which something is seen."""


class Final(NamedTuple):
    """The final boxes [n, 6] of an image: x1, y1, x2, y2 in pixels, score, class."""

    boxes: Tensor


Opened = Predictor | nn.Module
"""An exported file, or the network in a checkpoint."""
Answer = Candidates | Final | Tensor
Ask = Callable[[Tensor], Sequence[Answer]]
"""Prepared images [B, C, H, W] -> what is said of each image; or the output tensors for all of them."""


def checked(source: Source, runtime: Runtime, file: Path, path: Path, settings: ExportSettings, twin: Path) -> float:
    """How far a file is from its network, when that is near enough.

    Args:
        file: where it is now.
        path: where it is to be, for sentences.
        twin: for a file with the suppression inside, the same without it: boxes are compared by those of its answers,
            since rounding alone decides between boxes that are equally good.

    Raises:
        UserError: it cannot be run, or differs by more than its precision explains.
    """
    cpu = torch.device("cpu")
    opened = runtime.open(twin, cpu, 0, "fp32") if runtime.exported else load_checkpoint(twin).build()
    images = probes(3 if settings.dynamic else settings.batch_size, source.channels, source.size)
    int8 = settings.precision == "int8"
    try:
        error = seen_error(source, opened, settings) if int8 else output_error(source, opened, images, settings)
        if twin != file:
            error = max(error, detections_error(opened, runtime.open(file, cpu, 0, "fp32"), images, settings))
    except AnswerError:
        error = float("inf")
    check_outputs(error, settings.precision, runtime.title, path)
    return error


def probes(batch: int, channels: int, size: tuple[int, int]) -> list[Tensor]:
    """Inputs [B, C, H, W] float32 in 0..1: one of noise and one of shapes and gradients."""
    height, width = size
    shapes = torch.linspace(0, 1, width).expand(batch, channels, height, width).clone()
    shapes[:, 0, height // 4 : height // 2, width // 4 : width // 2] = 1
    shapes[:, -1, height // 2 :, width // 3 :] *= torch.linspace(1, 0, height - height // 2)[:, None]
    return [random_images(size, batch, channels), shapes]


def output_error(source: Source, opened: Opened, images: Sequence[Tensor], settings: ExportSettings) -> float:
    """The largest difference of what a file and its network answer.

    Args:
        images: prepared images [B, C, H, W] to compare on.

    Raises:
        UserError: the network itself answers with NaN or infinite values.
    """
    worst = 0.0
    for batch, (ask_network, ask_file) in itertools.product(images, _questions(source, opened, settings)):
        expected = ask_network(batch)
        if not all(bool(tensor.isfinite().all()) for answer in expected for tensor in tensors_of(answer)):
            raise UserError(
                "The network itself gives NaN or infinite values, so no file of it can be checked; its weights are "
                "broken, or too large: take another checkpoint."
            )
        found = ask_file(batch)
        if len(found) != len(expected):
            return float("inf")
        worst = max([worst, *map(_apart, found, expected)])
    return worst


def detections_error(twin: Opened, opened: Predictor, images: Sequence[Tensor], settings: ExportSettings) -> float:
    """The largest difference between the boxes that stay of a file's candidates and those that the other file gives."""
    assert isinstance(opened, FilePredictor) and isinstance(twin, FilePredictor)
    worst = 0.0
    for batch in images:
        expected = twin.predict(batch, settings.nms)
        for found, boxes in zip(torch.from_numpy(opened.outputs(batch)[0]), expected, strict=True):
            if int((found[:, 4] > 0).sum()) != len(boxes):
                return float("inf")
            worst = max(worst, _difference(found[: len(boxes)], boxes))
    return worst


def seen_error(source: Source, opened: Opened, settings: ExportSettings, most: int = 16) -> float:
    """How far quantisation moves what a network says of the calibration images, in the mean.

    For a detector the difference of confidence, over what it sees there; 0 where it sees nothing. For other networks
    the length of the difference of an output by the length of the output. Infinite where an output is not finite.
    """
    ask_network, ask_file = _questions(source, opened, settings)[-1]
    differences = [torch.zeros(0)]
    for pixels in source.images[:most]:
        image = source.family.prepare(pixels[None])
        for before, after in zip(ask_network(image), ask_file(image), strict=True):
            if not math.isfinite(_apart(after, before)):
                return float("inf")
            differences.append(_moved(before, after))
    moved = torch.cat(differences)
    return float(moved.mean()) if len(moved) else 0.0


def _questions(source: Source, opened: Opened, settings: ExportSettings) -> list[tuple[Ask, Ask]]:
    """What asks the network, and what asks the file, for the same: output tensors, then decoded answers."""
    whole = _tensors(source.whole)
    if isinstance(opened, nn.Module):
        return [(whole, _tensors(opened))]
    assert isinstance(opened, FilePredictor)
    outputs = opened.outputs

    def ask_file(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in outputs(images)]

    if opened.decoder is None or not source.family.knows("predictor"):
        return [(whole, ask_file)]
    known = source.family.predictor(source.whole)

    def ask(images: Tensor) -> list[Answer]:
        try:
            return _answers(known, images)
        except AnswerError as error:
            raise UserError(f"No file of this network can be checked. {error}") from error

    kind = source.outputs(settings).judged_as or settings.output
    held = _tensors(source.network(replace(settings, precision="fp32", output=kind)))
    return [(held, ask_file), (ask, lambda images: _answers(opened, images))]


def _tensors(network: nn.Module) -> Ask:
    """What asks a network for its output tensors."""

    def ask(images: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return [tensor.float() for tensor in tensors_of(network(images))]

    return ask


def _answers(predictor: Predictor, images: Tensor) -> list[Answer]:
    """What is said of each image, before any suppression."""
    return [found if isinstance(found, Candidates) else Final(found) for found in predictor.infer(images, -1.0)]


def _apart(found: Answer, expected: Answer) -> float:
    """The largest difference of two answers; infinite where they are not of the same shapes."""
    if isinstance(found, Final) and isinstance(expected, Final):
        found = _in_order_of(found, expected)
    pairs = zip(_values(found), _values(expected), strict=True)
    return max(_difference(ours, theirs) for ours, theirs in pairs)


def _values(answer: Answer) -> list[Tensor]:
    """Boxes by centre and size, as heads compute them: rounding moves a corner by a share of the whole box."""
    if isinstance(answer, Tensor):
        return [answer]
    boxes, rest = (answer.boxes[:, :4], answer.boxes[:, 4:]) if isinstance(answer, Final) else answer
    return [torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1), rest]


def _in_order_of(found: Final, expected: Final) -> Final:
    """Each box by the nearest of the others: rounding changes the order of boxes of nearly the same score."""
    if found.boxes.shape != expected.boxes.shape or not len(found.boxes) or not bool(found.boxes.isfinite().all()):
        return found
    return Final(found.boxes[torch.cdist(expected.boxes, found.boxes).argmin(1)])


def _moved(before: Answer, after: Answer) -> Tensor:
    """How far the confidence of everything that is seen moved, or the output of a network that detects nothing."""
    if isinstance(before, Tensor):
        assert isinstance(after, Tensor)
        return ((after - before).norm() / before.norm().clamp(min=1e-12))[None]
    if isinstance(before, Final) and isinstance(after, Final):
        sure, then = before.boxes[:, 4], _in_order_of(after, before).boxes[:, 4]
    else:
        assert isinstance(before, Candidates) and isinstance(after, Candidates)
        sure, then = before.scores.amax(1), after.scores.amax(1)
    return (then - sure).abs()[sure >= SEEN]


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of values, relative to max(1, |value|); infinite where a value is not finite, which max()
    would hide, or where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.double(), expected.double()
    difference = (found - expected).abs() / expected.abs().clamp(min=1)
    if not difference.numel():
        return 0.0
    return float(difference.max()) if bool(torch.isfinite(difference).all()) else float("inf")


def check_outputs(error: float, precision: str, runtime: str, path: Path) -> None:
    """UserError when a file's outputs differ from the network's by more than `TOLERANCE`."""
    allowed = TOLERANCE[precision]
    if not error <= allowed:
        raise UserError(
            f"In {runtime} the file differs from the network by {error:.2g} (allowed in {precision}: {allowed:g}), so "
            f"{path} was not written; try other options, such as another --opset or --no-simplify, or another format."
        )
