"""What stands behind a checkpoint: an architecture, plain data that builds a network, and what that network offers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.errors import UserError


@runtime_checkable
class Architecture(Protocol):
    """A network without its tensors: plain data, the same for every width. A `Family` has one class of them."""

    @property
    def kind(self) -> str:
        """Name of its family."""

    @property
    def nc(self) -> int:
        """Number of classes; 0 for a network that knows none."""

    @property
    def channels(self) -> int:
        """Channels of the image."""

    def build(self, names: Mapping[int, str]) -> nn.Module:
        """A fresh network, a `DescribedNetwork`, at its designed widths; also under `torch.device("meta")`.

        An architecture that has to compute something to build one says so with `built_in_memory = True`.

        Raises:
            UserError: it cannot be built.
        """

    def with_classes(self, nc: int) -> Architecture:
        """The same for another number of classes."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data describes no such architecture.
        """


@runtime_checkable
class DescribedNetwork(Protocol):
    """What a network (an `nn.Module`) offers so that it can be saved, built again, traced, counted and exported.

    Beside these a network may have `names` (class id -> name), `strides` (pixels of the image for one cell of each
    level), `fused()` (see the function of that name) and `initialize_biases()`, which gives a fresh head its prior.
    What its task needs beyond that is the affair of its family.
    """

    @property
    def architecture(self) -> Architecture:
        """What it is built from."""

    def forward(self, images: Tensor) -> Any:
        """Images [B, channels, H, W], as the family prepares them -> raw outputs."""

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        """What `forward` takes, of one image of this size (px; by default a small one)."""

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives every layer the shape of its tensor and a copy of the values (`tensors.set_tensors_` does it)."""


def outline(architecture: Architecture, names: Mapping[int, str]) -> nn.Module:
    """A network whose tensors have the designed shapes and no values that count.

    It has no memory, on the meta device, where its architecture can be built there; one with `built_in_memory = True`
    cannot. Random numbers are left as they were.
    """
    if getattr(architecture, "built_in_memory", False):
        with torch.random.fork_rng(devices=[]):
            return architecture.build(names)
    with torch.device("meta"):
        return architecture.build(names)


def architecture_of(subject: object) -> Architecture | None:
    """What a network or checkpoint says that it is built from; None where it says nothing."""
    found = getattr(subject, "architecture", None)
    return found if isinstance(found, Architecture) else None


_OFFERED = tuple(name for name in vars(DescribedNetwork) if not name.startswith("_"))


def is_described(network: nn.Module) -> bool:
    """Whether a network says what it is built from, and so can be saved with that.

    Raises:
        UserError: it does, but lacks something of `DescribedNetwork`.
    """
    if architecture_of(network) is None:
        return False
    lacking = [name for name in _OFFERED if not hasattr(network, name)]
    if lacking:
        raise UserError(
            f"A {type(network).__name__} has an architecture but lacks {', '.join(lacking)}; "
            "secateur.networks.architecture.DescribedNetwork lists what a network offers."
        )
    return True


def names_of(network: nn.Module) -> dict[int, str]:
    """Class id -> name of a network; empty where it has no names."""
    return dict(getattr(network, "names", {}))


def strides_of(network: nn.Module) -> tuple[float, ...]:
    """Pixels of the image for one cell of each level of a network; () where it has no strides."""
    return tuple(getattr(network, "strides", ()))


def example_image(network: nn.Module) -> Tensor:
    """One image [1, C, H, W] as a network reads it: its own example, or a small one in colour where it has none."""
    own = getattr(network, "example_inputs", None)
    image: Tensor = torch.zeros(1, 3, 64, 64) if own is None else own()[0]
    return image


def channels_of(network: nn.Module) -> int:
    """Channels of the images that a network reads."""
    return int(example_image(network).shape[1])


def fused(network: nn.Module) -> Any:
    """A copy in eval mode, without gradients, whose norms are folded where the network knows how (its own `fused`)."""
    own = getattr(type(network), "fused", None)
    if own is not None:
        return own(network)
    return copy.deepcopy(network).eval().requires_grad_(False)
