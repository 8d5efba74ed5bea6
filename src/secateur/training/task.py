"""Interface between a training and its network: preparation of images, loss, and steps before training."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings


class Task(Protocol):
    """Defines what a network is trained for; every `Family` is one."""

    def prepare(self, images: Tensor) -> Tensor:
        """Converts images, uint8 [B, C, H, W], to network input, float32 [B, C, H, W]."""

    def loss(self, network: nn.Module, settings: TrainSettings) -> Term:
        """The first term of the objective; created after `begin_training`."""

    def check_targets(self, network: nn.Module, targets: Tensor) -> None:
        """Checks that the loss can read the targets of a batch, which are on the CPU and have any shape.

        Raises:
            UserError: for example, the network does not have a class.
        """

    def begin_training(self, network: nn.Module, split: Any, settings: TrainSettings) -> list[str]:
        """Prepares the network for training, in place. Returns lines for the log.

        Args:
            split: the training images; None for a training without a data set.
        """


@runtime_checkable
class WithStrides(Protocol):
    """A network whose image sides must be multiples of its largest stride."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image per cell of each output level."""


def largest_stride(network: nn.Module) -> int | None:
    """Image sides are multiples of it; None for a network without strides."""
    return int(max(network.strides)) if isinstance(network, WithStrides) and network.strides else None


def check_strides(network: nn.Module, settings: TrainSettings) -> None:
    """Rejects options that need strides, for a network without strides.

    Raises:
        UserError: such an option is set; the message names it.
    """
    asked = [name for name in ("multi_scale", "rect") if getattr(settings, name)]
    if asked and largest_stride(network) is None:
        raise UserError(f"Option {asked[0]} needs strides, but {type(network).__name__} has none. Omit the option.")
