"""What stands behind a checkpoint: an architecture, plain data that builds a network, and what that network offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

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
        """A fresh network, a `DetectionNetwork`, at its designed widths; also under `torch.device("meta")`.

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
class DetectionNetwork(Protocol):
    """What a network (an `nn.Module`) offers so that it can be saved, described, validated, pruned and exported.

    Rows are [centre x, centre y, width, height in pixels, objectness, score of each class]. Beside these, a network may
    have a method `initialize_biases()` that gives a fresh head its prior.
    """

    names: dict[int, str]

    @property
    def architecture(self) -> Architecture:
        """What it is built from."""

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image for one cell of each level; the sides of images are multiples of the largest."""

    def forward(self, images: Tensor) -> Any:
        """Images [B, channels, H, W] in 0..1 -> raw outputs, which `decode` reads."""

    def decode(self, raw: Any) -> Tensor:
        """Raw outputs -> rows [B, N, 5 + nc], in fp32."""

    def decode_above(self, raw: Any, confidence: float) -> Sequence[Tensor]:
        """Of each image the rows [n, 5 + nc] of `decode`, in its order, whose objectness is above `confidence`."""

    def predict(self, images: Tensor) -> Tensor:
        """Images [B, channels, H, W] in 0..1 -> rows [B, N, 5 + nc]."""

    def fused(self) -> Any:
        """A copy in eval mode, without gradients, whose norms are folded where that can be."""

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        """What `forward` takes, of one image of this size (px; by default a small one)."""

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives every layer the shape of its tensor and a copy of the values (`tensors.set_tensors_` does it)."""


@runtime_checkable
class _Described(Protocol):
    """A network that says what it is built from."""

    @property
    def architecture(self) -> Architecture: ...


_OFFERED = ("names", *(name for name in vars(DetectionNetwork) if not name.startswith("_")))


def is_detection_network(network: nn.Module) -> bool:
    """Whether a network says what it is built from, and so can be saved with that.

    Raises:
        UserError: it does, but lacks something of `DetectionNetwork`.
    """
    if not isinstance(network, _Described) or not isinstance(network.architecture, Architecture):
        return False
    lacking = [name for name in _OFFERED if not hasattr(network, name)]
    if lacking:
        raise UserError(
            f"A {type(network).__name__} has an architecture but lacks {', '.join(lacking)}; "
            "secateur.networks.architecture.DetectionNetwork lists what a detection network offers."
        )
    return True
