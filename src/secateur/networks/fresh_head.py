"""Replaces the head of a network for other classes, while all other tensors are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.networks.architecture import Architecture, outline

Shapes = dict[str, tuple[int, ...]]


@runtime_checkable
class _Resettable(Protocol):
    """A layer that can be initialised again, like the layers of PyTorch."""

    def reset_parameters(self) -> None: ...


@runtime_checkable
class _Prior(Protocol):
    """A network that can initialise its biases for rare objects."""

    def initialize_biases(self) -> None: ...


def head_tensors(architecture: Architecture) -> dict[str, tuple[int | None, ...]]:
    """Tensors whose shape depends on the number of classes: the sizes that depend on it, and None for the others."""
    shapes, others = (_shapes(a) for a in (architecture, architecture.with_classes(architecture.nc + 1)))
    pairs = {name: list(zip(shape, others[name], strict=True)) for name, shape in shapes.items()}
    sides = {name: tuple(a if a != b else None for a, b in pair) for name, pair in pairs.items()}
    return {name: found for name, found in sides.items() if any(found)}


def _shapes(architecture: Architecture) -> Shapes:
    network = outline(architecture, {i: f"class{i}" for i in range(architecture.nc)})
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def with_room_for(head: Mapping[str, tuple[int | None, ...]], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors, any shape, in which those of the head (`head_tensors`) are zeros for its classes; cut widths are
    kept."""
    room = {
        name: torch.zeros([own if side is None else side for side, own in zip(sides, tensors[name].shape, strict=True)])
        for name, sides in head.items()
        if name in tensors
    }
    return {**tensors, **room}


def start_afresh_(network: nn.Module, head: Mapping[str, tuple[int | None, ...]]) -> None:
    """Initialises the layers of the head (`head_tensors`) again, including the prior of the network.

    Raises:
        UserError: a layer of the head has no `reset_parameters`.
    """
    for name in dict.fromkeys(name.rpartition(".")[0] for name in head):
        layer = network.get_submodule(name)
        if not isinstance(layer, _Resettable):
            raise UserError(f"The head cannot be replaced for other classes: {name} has no method reset_parameters.")
        layer.reset_parameters()
    if isinstance(network, _Prior):
        network.initialize_biases()
