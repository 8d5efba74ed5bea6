"""Outputs of exported detectors of this family: decoded rows, maps of the head, or boxes after suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateur.evaluation.nms import Candidates, Suppressed, corners_of
from secateur.evaluation.predictor import SCORE_SLACK
from secateur.families.outputs import DECODED, DETECTIONS, RAW, Decoder, FinalBoxes, Form, Opened, Outputs, Shape
from secateur.families.yolov5.deploy.network import Decoded, FlatDecoded, HeadMaps, MapDecoder, Parted
from secateur.families.yolov5.model import Detector
from secateur.sizes import Sides

Levels = tuple[tuple[tuple[float, float], ...], ...]
"""Width and height in pixels of each anchor of each level."""


def outputs_of(detector: Detector, form: Form) -> Outputs:
    """Outputs of an exported file: "decoded" rows [B, N, 5 + nc], "raw" maps [B, na * (5 + nc), ny, nx] per level,
    or "detections" [B, max_det, 6]."""
    anchors = (detector.head.anchors * torch.tensor(detector.strides).view(-1, 1, 1)).tolist()
    told = {"task": "detect", "anchors": anchors}
    if form.kind == RAW:
        return Outputs(HeadMaps(detector, form.half), told)
    decoded: nn.Module = Decoded(detector, form.half)
    if not form.any_size:
        decoded = FlatDecoded(detector, form.size, form.half)
    if form.kind == DECODED:
        return Outputs(decoded, told)
    return Outputs(Suppressed(Parted(decoded), form.nms, form.batch), told, judged_as=DECODED)


def decoder_of(opened: Opened) -> Decoder:
    """The decoder for a file of this package.

    Raises:
        ValueError: the outputs do not match the metadata of the file.
    """
    anchors, nc = anchors_of(opened.told.get("anchors")), len(opened.names)
    if opened.kind == DETECTIONS:
        return FinalBoxes.of(opened)
    if not (_are_maps if opened.kind == RAW else _are_rows)(opened, anchors):
        raise ValueError("it has no such rows or maps")
    return Maps(nc, opened.strides, anchors) if opened.kind == RAW else Rows(nc, opened.strides)


@dataclass(frozen=True)
class Rows:
    """Reads decoded rows [B, N, 5 + nc]: centre x, y, width, height in pixels, objectness, class scores."""

    nc: int
    strides: tuple[float, ...]
    used: int | None = 1
    final: bool = False

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> list[Candidates]:
        """See `Decoder`."""
        return candidates_of(outputs[0], confidence)


@dataclass(frozen=True)
class Maps:
    """Reads maps [B, na * (5 + nc), ny, nx] of the head, decoded with the anchors in the metadata."""

    nc: int
    strides: tuple[float, ...]
    anchors: Levels
    used: int | None = None
    final: bool = False
    _decoders: dict[Sides, MapDecoder] = field(default_factory=dict, compare=False)

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> list[Candidates]:
        """See `Decoder`."""
        if size not in self._decoders:
            self._decoders[size] = MapDecoder(torch.tensor(self.anchors), self.strides, size)
        return candidates_of(self._decoders[size](outputs), confidence)


def candidates_of(rows: Tensor | Sequence[Tensor], confidence: float) -> list[Candidates]:
    """For each image, the rows [N, 5 + nc] whose objectness is above a confidence, as boxes [n, 4] and class scores
    [n, nc]."""
    found = [of_image if confidence < 0 else of_image[of_image[:, 4] > confidence] for of_image in rows]
    return [Candidates(corners_of(kept[:, :4]), _scores(kept[:, 4:5], kept[:, 5:])) for kept in found]


def _scores(objectness: Tensor, classes: Tensor) -> Tensor:
    """Products [n, nc]; a factor outside 0..1 replaces its products, which could hide it."""
    scores = objectness * classes
    for factor in (objectness.expand_as(classes), classes):
        scores = torch.where((factor < -SCORE_SLACK) | (factor > 1 + SCORE_SLACK), factor, scores)
    return scores


def anchors_of(told: Any) -> Levels:
    """The anchors in the metadata of a file; () if invalid."""
    if not isinstance(told, list | tuple):
        return ()
    levels = []
    for level in told:
        pairs = level if isinstance(level, list | tuple) else ()
        if not pairs or not all(_is_pair(pair) for pair in pairs):
            return ()
        levels.append(tuple((float(pair[0]), float(pair[1])) for pair in pairs))
    return tuple(levels)


def _is_pair(pair: Any) -> bool:
    numbers = isinstance(pair, list | tuple) and len(pair) == 2
    return numbers and all(isinstance(side, int | float) and 0 < side < 1e6 for side in pair)


def _are_rows(opened: Opened, anchors: Levels) -> bool:
    first, takes = opened.gives[0], opened.takes
    if len(first) != 3 or first[2] not in (None, 5 + len(opened.names)):
        return False
    if not anchors or first[1] is None or takes[2] is None or takes[3] is None:
        return True  # early versions wrote rows of other networks too, without anchors
    levels = zip(anchors, opened.strides, strict=False)
    cells = sum(len(level) * int(takes[2] // stride) * int(takes[3] // stride) for level, stride in levels)
    return len(anchors) == len(opened.strides) and first[1] == cells


def _are_maps(opened: Opened, anchors: Levels) -> bool:
    if not anchors or len(anchors) != len(opened.gives) or len(anchors) != len(opened.strides):
        return False
    return all(
        _is_map(shape, opened.takes, stride, len(level) * (5 + len(opened.names)))
        for shape, stride, level in zip(opened.gives, opened.strides, anchors, strict=True)
    )


def _is_map(shape: Shape, takes: Shape, stride: float, channels: int) -> bool:
    if len(shape) != 4 or shape[1] != channels:
        return False
    sides = zip(shape[2:], takes[2:], strict=True)
    return all(cells is None or side is None or cells == int(side // stride) for cells, side in sides)
