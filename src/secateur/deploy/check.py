"""Checks exported files: opens each file as its user does and compares its outputs with those of the network."""

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
"""Allowed difference by precision: relative to max(1, |value|), and thus absolute for scores; for int8 see
`seen_error`.
"""
SEEN = 0.25
"""Confidence threshold of a detection."""


class Final(NamedTuple):
    """The final boxes [n, 6] of an image: x1, y1, x2, y2 in pixels, score, class."""

    boxes: Tensor


Opened = Predictor | nn.Module
"""An exported file, or the network of a checkpoint."""
Answer = Candidates | Final | Tensor
Ask = Callable[[Tensor], Sequence[Answer]]
"""Prepared images [B, C, H, W] -> the decoded outputs per image, or the output tensors of the batch."""


def checked(source: Source, runtime: Runtime, file: Path, path: Path, settings: ExportSettings, twin: Path) -> float:
    """The difference between a file and its network. Raises if it exceeds the tolerance.

    Args:
        source: the network.
        runtime: opens the file.
        file: current path of the file.
        path: final path, for error messages.
        settings: settings of the export.
        twin: for a file with non-maximum suppression inside, the same file without it. Boxes are compared with the
            suppressed outputs of the twin, because rounding decides between boxes of equal score.

    Raises:
        UserError: the file cannot run, or differs by more than its precision explains.
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
    """Test inputs float32 [B, C, H, W] in 0..1: one of noise, and one of shapes and gradients."""
    height, width = size
    shapes = torch.linspace(0, 1, width).expand(batch, channels, height, width).clone()
    shapes[:, 0, height // 4 : height // 2, width // 4 : width // 2] = 1
    shapes[:, -1, height // 2 :, width // 3 :] *= torch.linspace(1, 0, height - height // 2)[:, None]
    return [random_images(size, batch, channels), shapes]


def output_error(source: Source, opened: Opened, images: Sequence[Tensor], settings: ExportSettings) -> float:
    """The largest difference between the outputs of a file and its network.

    Args:
        source: the network.
        opened: the opened file.
        images: prepared images float32 [B, C, H, W] in 0..1 to compare on.
        settings: settings of the export.

    Raises:
        UserError: the network's own outputs are NaN or infinite.
    """
    worst = 0.0
    for batch, (ask_network, ask_file) in itertools.product(images, _questions(source, opened, settings)):
        expected = ask_network(batch)
        if not all(bool(tensor.isfinite().all()) for answer in expected for tensor in tensors_of(answer)):
            raise UserError(
                "The network's own outputs are NaN or infinite, so its export cannot be checked. The weights "
                "are damaged or too large; use another checkpoint."
            )
        found = ask_file(batch)
        if len(found) != len(expected):
            return float("inf")
        worst = max([worst, *map(_apart, found, expected)])
    return worst


def detections_error(twin: Opened, opened: Predictor, images: Sequence[Tensor], settings: ExportSettings) -> float:
    """The largest difference between the boxes of a file with suppression inside and the suppressed boxes of its twin.

    Images are float32 [B, C, H, W] in 0..1.
    """
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
    """The mean change of the network's outputs on calibration images due to quantisation.

    For a detector, the difference in confidence of its detections; 0 if it detects nothing. For other networks, the
    norm of an output's difference relative to the norm of the output. Infinite if an output is not finite.
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
    """Pairs of functions that evaluate the network and the file in the same way: output tensors, then decoded
    outputs.
    """
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
            raise UserError(f"The export of this network cannot be checked. {error}") from error

    kind = source.outputs(settings).judged_as or settings.output
    held = _tensors(source.network(replace(settings, precision="fp32", output=kind)))
    return [(held, ask_file), (ask, lambda images: _answers(opened, images))]


def _tensors(network: nn.Module) -> Ask:
    """A function that returns a network's output tensors."""

    def ask(images: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return [tensor.float() for tensor in tensors_of(network(images))]

    return ask


def _answers(predictor: Predictor, images: Tensor) -> list[Answer]:
    """The decoded outputs per image before suppression. Images are float32 [B, C, H, W] in 0..1."""
    return [found if isinstance(found, Candidates) else Final(found) for found in predictor.infer(images, -1.0)]


def _apart(found: Answer, expected: Answer) -> float:
    """The largest difference between two outputs; infinite if their shapes differ."""
    if isinstance(found, Final) and isinstance(expected, Final):
        found = _in_order_of(found, expected)
    pairs = zip(_values(found), _values(expected), strict=True)
    return max(_difference(ours, theirs) for ours, theirs in pairs)


def _values(answer: Answer) -> list[Tensor]:
    """Boxes as centre and size, as heads compute them: rounding moves a corner by a fraction of the whole box."""
    if isinstance(answer, Tensor):
        return [answer]
    boxes, rest = (answer.boxes[:, :4], answer.boxes[:, 4:]) if isinstance(answer, Final) else answer
    return [torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1), rest]


def _in_order_of(found: Final, expected: Final) -> Final:
    """Reorders the found boxes by the nearest expected box, because rounding changes the order of boxes with almost
    equal scores.
    """
    if found.boxes.shape != expected.boxes.shape or not len(found.boxes) or not bool(found.boxes.isfinite().all()):
        return found
    return Final(found.boxes[torch.cdist(expected.boxes, found.boxes).argmin(1)])


def _moved(before: Answer, after: Answer) -> Tensor:
    """The change in confidence of every detection, or of the output of a network that is not a detector."""
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
    """The largest difference of two float tensors of any shape, relative to max(1, |value|). Infinite if a value is not
    finite (which max() would hide), or if the shapes differ.
    """
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.double(), expected.double()
    difference = (found - expected).abs() / expected.abs().clamp(min=1)
    if not difference.numel():
        return 0.0
    return float(difference.max()) if bool(torch.isfinite(difference).all()) else float("inf")


def check_outputs(error: float, precision: str, runtime: str, path: Path) -> None:
    """Raises UserError if a file's outputs differ from the network's by more than `TOLERANCE`."""
    allowed = TOLERANCE[precision]
    if not error <= allowed:
        raise UserError(
            f"{path} was not written: in {runtime} it differs from the network by {error:.2g}, and "
            f"{precision} allows {allowed:g}. Try other options, such as another --opset or --no-simplify, or "
            "another format."
        )
