"""Outputs of exported files and decoders for the outputs of opened files; defined by the families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.evaluation.settings import PREDICTION, NmsSettings
from secateur.networks.architecture import fused
from secateur.sizes import Sides

DECODED, RAW, DETECTIONS = "decoded", "raw", "detections"
Shape = tuple[int | None, ...]
"""Sides of an input or output; None for variable sides."""


@dataclass(frozen=True)
class Form:
    """Requested outputs of a file.

    Attributes:
        kind: "decoded" outputs, "raw" outputs of the last layers, or "detections": boxes after suppression.
        size: height and width of the images in pixels.
        batch: images per call; 0: variable.
        any_size: whether the image size is variable too.
        half: whether the network computes in fp16.
        nms: settings of the suppression, for "detections".
    """

    kind: str
    size: Sides
    batch: int = 1
    any_size: bool = False
    half: bool = False
    nms: NmsSettings = PREDICTION


@dataclass(frozen=True)
class Outputs:
    """Outputs of a file of a network.

    Attributes:
        network: maps prepared images, float32 [B, C, H, W], to a tensor or a list of tensors, in eval mode; it shares
            no tensor with the network it was created from.
        metadata: plain data that `Family.decoder` reads back from the file; the keys are defined by the family.
        judged_as: kind of outputs to compare instead, if these outputs contain a selection that depends on rounding; ""
            compares the outputs themselves.
    """

    network: nn.Module
    metadata: Mapping[str, Any] = field(default_factory=dict)
    judged_as: str = ""


class Decoder(Protocol):
    """Converts the outputs of an opened file to predictions."""

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels per cell of each level."""

    @property
    def used(self) -> int | None:
        """Number of leading outputs of the file that are read; None for all."""

    @property
    def final(self) -> bool:
        """Whether the predictions are boxes that need no suppression."""

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> Any:
        """Converts the outputs for images [B, C, *size] to `Candidates` or the final boxes [n, 6] of each image of a
        detector; other tasks return their own predictions.

        Args:
            confidence: candidates whose scores are all at or below it may be omitted; if negative, none are.
        """


@dataclass(frozen=True)
class Opened:
    """A file written by Secateur: its metadata, and the shapes of its input and outputs.

    Attributes:
        kind: kind of its outputs, see `Form`.
        told: the metadata from the family (`Outputs.metadata`) that the file still contains.
        names: class id -> name.
        strides: pixels per cell of each level.
        takes: shape of its input.
        gives: shapes of its outputs.
    """

    kind: str
    told: Mapping[str, Any]
    names: Mapping[int, str]
    strides: tuple[float, ...]
    takes: Shape
    gives: Sequence[Shape]


@dataclass(frozen=True)
class FinalBoxes:
    """Reads boxes [B, n, 6] that were selected inside the file: x1, y1, x2, y2 in pixels, score, class; unused rows
    are zero."""

    nc: int
    strides: tuple[float, ...]
    used: int | None = 1
    final: bool = True
    values: ClassVar[int] = 6

    @staticmethod
    def of(opened: Opened) -> FinalBoxes:
        """The decoder for a file.

        Raises:
            ValueError: the file does not have such boxes.
        """
        if len(opened.gives[0]) != 3 or opened.gives[0][2] not in (None, FinalBoxes.values) or not opened.names:
            raise ValueError("it has no final boxes")
        return FinalBoxes(len(opened.names), opened.strides)

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> list[Tensor]:
        """See `Decoder`."""
        return [boxes[boxes[:, 4] > max(confidence, 0)] for boxes in outputs[0]]


@dataclass(frozen=True)
class Answer:
    """Outputs of a file of another program for black images.

    Attributes:
        stated: number of classes in its metadata; 0 if missing.
        batch: number of images.
        size: height and width of the images in pixels.
        outputs: outputs of the file.
        task: task in its metadata, for example "detect"; "" if missing.
        strides: strides in its metadata; only the largest if there are no more.
    """

    stated: int
    batch: int
    size: Sides
    outputs: Sequence[NDArray[Any]]
    task: str = ""
    strides: tuple[float, ...] = (32.0,)

    @property
    def rows(self) -> NDArray[np.float32] | None:
        """The first output for the first image, float32 [N, values]; None if it does not have three axes."""
        first = self.outputs[0] if self.outputs else np.zeros(0)
        if first.ndim != 3 or first.shape[0] != self.batch or not first.size:
            return None
        return first[0].astype(np.float32)


class OwnOutputs(nn.Module):
    """Maps prepared images to all tensors that a network returns, in order and in any container; computed in one
    dtype."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> tensors of any shape."""
        found = tensors_of(self.network(cast(images, self.dtype)))
        return [y.float() if y.is_floating_point() else y for y in found]


def own_outputs(network: nn.Module, form: Form) -> Outputs:
    """The outputs of the network itself, which are available for every network.

    Raises:
        UserError: another kind is requested.
    """
    if form.kind != DECODED:
        raise UserError(
            f"{type(network).__name__} has no output {form.kind}: its file contains the outputs of the network as they "
            "are. Omit --output."
        )
    exported = OwnOutputs(fused(network), torch.float16 if form.half else torch.float32)
    return Outputs(exported)


def tensors_of(given: Any) -> list[Tensor]:
    """All tensors, of any shape, in nested lists, tuples and mappings, in order."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, Mapping):
        given = list(given.values())
    if not isinstance(given, list | tuple):
        return []
    return [tensor for part in given for tensor in tensors_of(part)]


def cast(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images [B, C, H, W] in another dtype. A traced cast to the same dtype would remain in the program and prevent
    its conversion to another dtype, so it is skipped."""
    return images if images.dtype == dtype else images.to(dtype)
