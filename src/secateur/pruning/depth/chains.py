"""What a network has to offer for layers to be removed: its chains of blocks, and a way to come back shorter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.errors import UserError


class ChainBlock(Protocol):
    """A block of a chain, a run of like blocks each of which could go."""

    @property
    def name(self) -> str:
        """Of the block, e.g. "model.4.m.1"."""
        ...

    @property
    def chain(self) -> str:
        """Name of the chain, e.g. "model.4.m"."""
        ...

    @property
    def index(self) -> int:
        """Place in the chain, from 0."""
        ...

    @property
    def length(self) -> int:
        """Blocks of the chain."""
        ...

    @property
    def residual(self) -> bool:
        """Whether it adds its input to its output."""
        ...

    @property
    def inputs(self) -> tuple[int, ...]:
        """(channels, height, width) that it reads from some image."""
        ...

    @property
    def outputs(self) -> tuple[int, ...]:
        """(channels, height, width) that it gives for it."""
        ...

    @property
    def designed(self) -> bool:
        """Whether the architecture, before any cut, gives it one width; else its sums would be built otherwise."""
        ...

    @property
    def ends(self) -> tuple[tuple[str, str], ...]:
        """Names of the convolutions, each with its batch norm, whose channels are the output of the block's branch."""
        ...

    @property
    def collapses(self) -> bool:
        """Whether a block that is left alone in the chain takes the chain's name."""
        ...


@runtime_checkable
class Chained(Protocol):
    """A network with chains of blocks."""

    def chain_blocks(self) -> Sequence[ChainBlock]:
        """Every block of every chain, in the order of the network, removable or not."""
        ...

    def without_blocks(self, kept: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor]) -> nn.Module:
        """The network whose chains have only the blocks `kept` (indices by chain), with a copy of these tensors."""
        ...


def chained(network: nn.Module) -> Chained:
    """The network as one with chains.

    Raises:
        UserError: it does not tell its chains.
    """
    if not isinstance(network, Chained):
        raise UserError(
            f"{type(network).__name__} does not tell which chains of blocks it has, so no layer can be removed from "
            "it; channels can be."
        )
    return network
