"""What a training asks of a network: how images get in, what the loss is, and what comes before the first step."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings


class Task(Protocol):
    """What a network is trained for; every `Family` is one."""

    def prepare(self, images: Tensor) -> Tensor:
        """Images uint8 [B, C, H, W] -> what the network is called with, float32."""

    def loss(self, network: nn.Module, settings: TrainSettings) -> Term:
        """The first term of the objective; made after `begin_training`."""

    def check_targets(self, network: nn.Module, targets: Tensor) -> None:
        """Refuses targets of a batch, still on the CPU, that the loss cannot read.

        Raises:
            UserError: such as a class that the network does not have.
        """

    def begin_training(self, network: nn.Module, split: Any, settings: TrainSettings) -> list[str]:
        """What the network needs before its first step, in place; lines for the log.

        Args:
            split: the training images, where the training has some of a data set.
        """


@runtime_checkable
class WithStrides(Protocol):
    """A network whose image sides are multiples of its largest stride."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image for one cell of each output level."""


def largest_stride(network: nn.Module) -> int | None:
    """Of which image sides are multiples; None for a network that names no strides."""
    return int(max(network.strides)) if isinstance(network, WithStrides) and network.strides else None


def check_strides(network: nn.Module, settings: TrainSettings) -> None:
    """Refuses what goes by strides for a network that does not say of which numbers its image sides are multiples.

    Raises:
        UserError: naming the option.
    """
    asked = [name for name in ("multi_scale", "rect") if getattr(settings, name)]
    if asked and largest_stride(network) is None:
        raise UserError(
            f"Option {asked[0]} sizes images in multiples of a stride, and a {type(network).__name__} names no "
            "strides; leave it out."
        )
