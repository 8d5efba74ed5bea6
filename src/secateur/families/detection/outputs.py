"""Default outputs of exported detectors: all boxes with their scores, or final boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.evaluation.nms import Candidates, Suppressed
from secateur.families.detection.network import decides
from secateur.families.outputs import (
    DECODED,
    DETECTIONS,
    RAW,
    Decoder,
    FinalBoxes,
    Form,
    Opened,
    Outputs,
    cast,
    own_outputs,
)
from secateur.networks.architecture import fused
from secateur.sizes import Sides

_KEY = "boxes"
_FINAL, _ALL = "final", "all"


class Proposed(nn.Module):
    """Maps images to corners [B, N, 4] in pixels and scores [B, N, nc] of all candidates of a `Proposing` network."""

    def __init__(self, network: nn.Module, half: bool = False) -> None:
        super().__init__()
        self.dtype = torch.float16 if half else torch.float32
        self.network: Any = fused(network).to(self.dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> corners, scores."""
        found = self.network.candidates(self.network(cast(images, self.dtype)), -1.0)
        return tuple(torch.stack([of_image[part].float() for of_image in found]) for part in (0, 1))  # type: ignore[return-value]


class Joined(nn.Module):
    """Corners and scores in one tensor [B, N, 4 + nc]."""

    def __init__(self, proposed: Proposed) -> None:
        super().__init__()
        self.proposed = proposed

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, 4 + nc]."""
        return torch.cat(self.proposed(images), -1)


class Decided(Proposed):
    """Maps images to the final boxes [B, n, 6] of a `Deciding` network."""

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """[B, C, H, W] -> [B, n, 6]."""
        found = self.network.boxes(self.network(cast(images, self.dtype)))
        return torch.stack([boxes.float() for boxes in found])


def detector_outputs(network: nn.Module, form: Form) -> Outputs:
    """Outputs of an exported file of a `DetectionNetwork`.

    "decoded": [B, N, 4 + nc], corners in pixels and scores of all candidates, or [B, n, 6], the boxes of a `Deciding`
    network; "raw": the outputs of `forward`; "detections": [B, max_det, 6], boxes after suppression.
    """
    if form.kind == RAW:
        return own_outputs(network, replace(form, kind=DECODED))
    if decides(network):
        return Outputs(Decided(network, form.half), {"task": "detect", _KEY: _FINAL})
    proposed = Proposed(network, form.half)
    if form.kind == DETECTIONS:
        inside = Suppressed(proposed, form.nms, form.batch)
        return Outputs(inside, {"task": "detect", _KEY: _FINAL}, judged_as=DECODED)
    return Outputs(Joined(proposed), {"task": "detect", _KEY: _ALL})


def detector_decoder(opened: Opened) -> Decoder | None:
    """The decoder of these outputs; None for raw outputs.

    Raises:
        ValueError: the outputs do not match the metadata of the file.
    """
    if opened.kind == RAW:
        return None
    if opened.told.get(_KEY) == _FINAL:
        return FinalBoxes.of(opened)
    if len(opened.gives[0]) != 3 or opened.gives[0][2] not in (None, 4 + len(opened.names)):
        raise ValueError("it has no boxes with one score per class")
    return AllCandidates(len(opened.names), opened.strides)


@dataclass(frozen=True)
class AllCandidates:
    """Reads corners and scores [B, N, 4 + nc]."""

    nc: int
    strides: tuple[float, ...]
    used: int | None = 1
    final: bool = False

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> list[Candidates]:
        """See `Decoder`."""
        best = [(rows[:, 4:] > confidence).any(1) | (confidence < 0) for rows in outputs[0]]
        return [Candidates(rows[sure, :4], rows[sure, 4:]) for rows, sure in zip(outputs[0], best, strict=True)]
