"""Architectures: plain data that a network is built from, and the interface of such networks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.errors import UserError


@runtime_checkable
class Architecture(Protocol):
    """A network without its tensors: plain data, the same for every width. Each `Family` has one class."""

    @property
    def kind(self) -> str:
        """Name of its family."""

    @property
    def nc(self) -> int:
        """Number of classes; 0 for a network without classes."""

    @property
    def channels(self) -> int:
        """Image channels."""

    def build(self, names: Mapping[int, str]) -> nn.Module:
        """An untrained network, a `DescribedNetwork`, with its designed widths; also under `torch.device("meta")`.

        An architecture that must compute something to build a network sets `built_in_memory = True`.

        Raises:
            UserError: the network cannot be built.
        """

    def with_classes(self, nc: int) -> Architecture:
        """The architecture for another number of classes."""

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data does not describe such an architecture.
        """


@runtime_checkable
class DescribedNetwork(Protocol):
    """Interface of a network (an `nn.Module`) that can be saved, rebuilt, traced, counted and exported.

    In addition, a network may have `names` (class id -> name), `strides` (pixels of the image per cell of each level),
    `fused()` (see the function of that name) and `initialize_biases()`, which sets the prior of a new head. Its family
    may require more.
    """

    @property
    def architecture(self) -> Architecture:
        """What it is built from."""

    def forward(self, images: Tensor) -> Any:
        """Images [B, channels, H, W], as prepared by the family -> raw outputs."""

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        """Input of `forward` for one image [1, C, H, W] of this size (px; default: a small one)."""

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives every layer the shape and a copy of its tensor, any shape (see `tensors.set_tensors_`)."""


def outline(architecture: Architecture, names: Mapping[int, str]) -> nn.Module:
    """A network whose tensors have the designed shapes and undefined values.

    It is on the meta device and uses no memory, unless its architecture has `built_in_memory = True`. The random state
    is not changed.
    """
    if getattr(architecture, "built_in_memory", False):
        with torch.random.fork_rng(devices=[]):
            return architecture.build(names)
    with torch.device("meta"):
        return architecture.build(names)


def architecture_of(subject: object) -> Architecture | None:
    """Architecture of a network or checkpoint; None if it has none."""
    found = getattr(subject, "architecture", None)
    return found if isinstance(found, Architecture) else None


_OFFERED = tuple(name for name in vars(DescribedNetwork) if not name.startswith("_"))


def is_described(network: nn.Module) -> bool:
    """Whether a network has an architecture and can be saved with it.

    Raises:
        UserError: it has an architecture, but part of the `DescribedNetwork` interface is missing.
    """
    if architecture_of(network) is None:
        return False
    lacking = [name for name in _OFFERED if not hasattr(network, name)]
    if lacking:
        raise UserError(
            f"{type(network).__name__} has an architecture, but lacks {', '.join(lacking)}. "
            "See secateur.networks.architecture.DescribedNetwork for the interface of networks."
        )
    return True


def names_of(network: nn.Module) -> dict[int, str]:
    """Class id -> name of a network; empty without names."""
    return dict(getattr(network, "names", {}))


def strides_of(network: nn.Module) -> tuple[float, ...]:
    """Pixels of the image per cell of each level of a network; () without strides."""
    return tuple(getattr(network, "strides", ()))


def example_image(network: nn.Module) -> Tensor:
    """One image [1, C, H, W] for a network: its own example, or a small colour image."""
    own = getattr(network, "example_inputs", None)
    image: Tensor = torch.zeros(1, 3, 64, 64) if own is None else own()[0]
    return image


def channels_of(network: nn.Module) -> int:
    """Number of channels of the images that a network reads."""
    return int(example_image(network).shape[1])


def fused(network: nn.Module) -> Any:
    """A copy in eval mode, without gradients, with folded norms if the network supports it (its method `fused`)."""
    own = getattr(type(network), "fused", None)
    if own is not None:
        return own(network)
    return copy.deepcopy(network).eval().requires_grad_(False)
