"""Example inputs, with which a network is traced and tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.pruning.graph.pricing import Sides

SIDE = 64
"""px: side of the image for a network without example inputs."""
_STRIDES = (32, 64, 128)  # px: for a network that does not report strides


@runtime_checkable
class WithExamples(Protocol):
    """A network that provides its own example inputs."""

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        """Inputs of one call. Images are [1, C, H, W] with `image_size` pixels per side; None: the smallest
        supported size."""
        ...


@runtime_checkable
class WithStrides(Protocol):
    """A network whose image sides must be multiples of its largest stride."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image per cell of each output level."""
        ...


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a network.

    Attributes:
        inputs: arguments of the call.
        answers: takes the outputs, returns the ones whose channels must stay.
    """

    inputs: tuple[Any, ...]
    answers: Callable[[Any], Any]


def everything(outputs: Any) -> Any:
    """Returns all outputs."""
    return outputs


def example_inputs_of(network: nn.Module, given: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """The given inputs, else the example inputs of the network, else one image of 64 px; with the device and dtype
    of the network."""
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
    """Applies `change` to every tensor of nested tuples, lists and mappings."""
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
    """Height and width of the only input, an image [B, C, H, W]; None for other inputs."""
    if len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
        return int(inputs[0].shape[2]), int(inputs[0].shape[3])
    return None


def strides_to_try(network: nn.Module) -> tuple[int, ...]:
    """Candidates for the number that image sides must be multiples of."""
    return (int(max(network.strides)),) if isinstance(network, WithStrides) and network.strides else _STRIDES


def grey(shapes: tuple[Any, ...], network: nn.Module, factor: int = 1) -> tuple[Any, ...]:
    """Inputs with the shapes of a graph, filled with 0.5; maps [B, C, H, W] are `factor` times as high and wide."""

    def filled(tensor: Tensor) -> Tensor:
        size = list(tensor.shape)
        if tensor.ndim == 4:
            size[2:] = [factor * side for side in size[2:]]
        return torch.full(size, 0.5 if tensor.is_floating_point() else 0, dtype=tensor.dtype)

    return example_inputs_of(network, mapped(shapes, filled))
