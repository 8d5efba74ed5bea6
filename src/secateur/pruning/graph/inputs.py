"""Example inputs: what a network is traced and probed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.pruning.graph.pricing import Sides

SIDE = 64
"""px: of the image for a network that tells no inputs."""
_STRIDES = (32, 64, 128)  # px: for a network that tells none


@runtime_checkable
class WithExamples(Protocol):
    """A network that knows what it reads."""

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        """Inputs of a call; images have `image_size` pixels a side, or as few as the network likes."""
        ...


@runtime_checkable
class WithStrides(Protocol):
    """A network whose image sides are multiples of its largest stride."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image for one cell of each output level."""
        ...


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a network.

    Attributes:
        inputs: what it is called with.
        answers: takes what it gives, gives the part that counts.
    """

    inputs: tuple[Any, ...]
    answers: Callable[[Any], Any]


def everything(outputs: Any) -> Any:
    """All outputs count."""
    return outputs


def example_inputs_of(network: nn.Module, given: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """The given inputs, else the network's own examples, else one image of 64 px; on its device, in its dtype."""
    if not given:
        image = (torch.zeros(1, 3, SIDE, SIDE),)
        given = network.example_inputs() if isinstance(network, WithExamples) else image
    reference = next(chain(network.parameters(), network.buffers()), torch.empty(0))

    def fitted(tensor: Tensor) -> Tensor:
        dtype = reference.dtype if tensor.is_floating_point() and reference.is_floating_point() else tensor.dtype
        return tensor.to(reference.device, dtype)

    inputs: tuple[Any, ...] = mapped(given, fitted)
    return inputs


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples, lists and mappings with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(part, change) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(part, change) for part in value)
    if isinstance(value, dict):
        return type(value)((key, mapped(part, change)) for key, part in value.items())
    return value


def image_sides(inputs: tuple[Any, ...]) -> Sides | None:
    """Height and width of the one image [B, C, H, W] that a network reads; None if it reads something else."""
    if len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
        return int(inputs[0].shape[2]), int(inputs[0].shape[3])
    return None


def strides_to_try(network: nn.Module) -> tuple[int, ...]:
    """What a network's image sides may be multiples of."""
    return (int(max(network.strides)),) if isinstance(network, WithStrides) and network.strides else _STRIDES


def grey(shapes: tuple[Any, ...], network: nn.Module, factor: int = 1) -> tuple[Any, ...]:
    """Inputs of the shapes of a graph, filled with 0.5, whose maps [B, C, H, W] are `factor` times as high and wide."""

    def filled(tensor: Tensor) -> Tensor:
        size = list(tensor.shape)
        if tensor.ndim == 4:
            size[2:] = [factor * side for side in size[2:]]
        return torch.full(size, 0.5 if tensor.is_floating_point() else 0, dtype=tensor.dtype)

    return example_inputs_of(network, mapped(shapes, filled))
