"""What a network has to offer for layers to be removed: its chains of blocks, and a way to come back shorter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.removal import Removal


@dataclass(frozen=True)
class ChainBlock:
    """A block of a chain, a run of like blocks each of which could go.

    Attributes:
        name: of the block, e.g. "model.4.m.1".
        chain: name of the chain, e.g. "model.4.m".
        index: place in the chain, from 0.
        length: blocks of the chain.
        residual: whether it adds its input to its output.
        inputs: (channels, height, width) that it reads from some image.
        outputs: (channels, height, width) that it gives.
        designed: whether the architecture, before any cut, gives it one width; else its sums would be built otherwise.
        ends: names of the convolutions, each with its batch norm, that end its branch.
        collapses: whether a block that is left alone in the chain takes the chain's name.
    """

    name: str
    chain: str
    index: int
    length: int
    residual: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    designed: bool = True
    ends: tuple[tuple[str, str], ...] = ()
    collapses: bool = False


@runtime_checkable
class Chained(Protocol):
    """A network with chains of blocks."""

    def chain_blocks(self) -> Sequence[ChainBlock]:
        """Every block of every chain, in the order of the network, removable or not."""
        ...

    def without_blocks(self, kept: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor]) -> nn.Module:
        """The network whose chains have only the blocks `kept` (indices by chain), with a copy of these tensors."""
        ...


@runtime_checkable
class Joining(Protocol):
    """A network with chains of which every block's output is read, not the last one's alone."""

    def joined(self, kept: Mapping[str, Sequence[int]], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors, or masks, by name, where the columns that read removed blocks are added to those that read what is
        before them; names and all others stay."""
        ...


def left_of(network: nn.Module, removal: Removal, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a removal leaves of a network's tensors, or of masks for them, under the new names."""
    joined = network.joined(removal.kept, named) if isinstance(network, Joining) else named
    return removal.tensors(joined)


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
