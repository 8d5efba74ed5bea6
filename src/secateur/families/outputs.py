"""What an exported file of a network gives, and how an opened file's outputs become answers: a family says both."""

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
"""Sides of an input or output; None for sides that are open."""


@dataclass(frozen=True)
class Form:
    """What a file is to give.

    Attributes:
        kind: "decoded" answers, "raw" outputs of the last layers, or "detections", boxes after suppression.
        size: height and width of the images in pixels.
        batch: images of a call; 0 leaves their number open.
        any_size: the sides of the image are open too.
        half: the network computes in fp16.
        nms: which boxes stay, for "detections".
    """

    kind: str
    size: Sides
    batch: int = 1
    any_size: bool = False
    half: bool = False
    nms: NmsSettings = PREDICTION


@dataclass(frozen=True)
class Outputs:
    """What a file of a network gives.

    Attributes:
        network: prepared images float32 [B, C, H, W] -> a tensor or a list of tensors, in evaluation mode; it shares
            no tensor with the network that it was made from.
        metadata: plain data that `Family.decoder` reads back from the file, by keys of the family's own.
        judged_as: kind of outputs that is compared in its place, where this one holds a selection that rounding
            decides; "" compares the outputs themselves.
    """

    network: nn.Module
    metadata: Mapping[str, Any] = field(default_factory=dict)
    judged_as: str = ""


class Decoder(Protocol):
    """How the outputs of an opened file become answers."""

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of a cell of each level."""

    @property
    def used(self) -> int | None:
        """How many of the file's outputs are read, the first ones; None for all."""

    @property
    def final(self) -> bool:
        """Whether the answers are boxes that need no suppression."""

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> Any:
        """The outputs for images [B, C, *size] -> of each image `Candidates`, or the final boxes [n, 6] of a detector;
        any other answer of another task.

        Args:
            confidence: candidates whose scores are all at most this may be left out; below 0 none is.
        """


@dataclass(frozen=True)
class Opened:
    """A file that Secateur wrote: what it says of itself, and the shapes of its input and outputs.

    Attributes:
        kind: of its outputs, see `Form`.
        told: the metadata that the family gave it (`Outputs.metadata`), as far as it is still there.
        names: class id -> name.
        strides: pixels of a cell of each level.
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
    """Reads boxes [B, n, 6] that were chosen inside the file: x1, y1, x2, y2 in pixels, score, class; rows of zeros
    behind the last."""

    nc: int
    strides: tuple[float, ...]
    used: int | None = 1
    final: bool = True
    values: ClassVar[int] = 6

    @staticmethod
    def of(opened: Opened) -> FinalBoxes:
        """For a file.

        Raises:
            ValueError: it does not give such boxes.
        """
        if len(opened.gives[0]) != 3 or opened.gives[0][2] not in (None, FinalBoxes.values) or not opened.names:
            raise ValueError("no final boxes")
        return FinalBoxes(len(opened.names), opened.strides)

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> list[Tensor]:
        """See `Decoder`."""
        return [boxes[boxes[:, 4] > max(confidence, 0)] for boxes in outputs[0]]


@dataclass(frozen=True)
class Answer:
    """What a file of another program gives for black images.

    Attributes:
        stated: number of classes that it states; 0 where it does not.
        batch: number of images.
        size: their height and width in pixels.
        outputs: as the file gives them.
        task: that it states, "detect" for example; "" where it does not.
        strides: that it states, the largest alone where it states no more.
    """

    stated: int
    batch: int
    size: Sides
    outputs: Sequence[NDArray[Any]]
    task: str = ""
    strides: tuple[float, ...] = (32.0,)

    @property
    def rows(self) -> NDArray[np.float32] | None:
        """The first output for the first image, [N, values], where it has that many axes."""
        first = self.outputs[0] if self.outputs else np.zeros(0)
        if first.ndim != 3 or first.shape[0] != self.batch or not first.size:
            return None
        return first[0].astype(np.float32)


class OwnOutputs(nn.Module):
    """Prepared images -> every tensor that a network returns, in order, whatever holds them; computed in one dtype."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> tensors."""
        found = tensors_of(self.network(cast(images, self.dtype)))
        return [y.float() if y.is_floating_point() else y for y in found]


def own_outputs(network: nn.Module, form: Form) -> Outputs:
    """The network's own outputs as they are: what a file of any network can give.

    Raises:
        UserError: another kind is asked for.
    """
    if form.kind != DECODED:
        raise UserError(
            f"A file of a {type(network).__name__} gives the outputs of the network as they are; it has no output "
            f"{form.kind}: leave --output out."
        )
    exported = OwnOutputs(fused(network), torch.float16 if form.half else torch.float32)
    return Outputs(exported)


def tensors_of(given: Any) -> list[Tensor]:
    """Every tensor in an output, in order; it may be in lists, tuples and mappings."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, Mapping):
        given = list(given.values())
    if not isinstance(given, list | tuple):
        return []
    return [tensor for part in given for tensor in tensors_of(part)]


def cast(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Traced, a cast to what images are already would stay, and keep a program from being turned into another dtype."""
    return images if images.dtype == dtype else images.to(dtype)
