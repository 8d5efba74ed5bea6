"""Protocols of networks with removable blocks: their chains, and how to rebuild them with shorter chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.removal import Removal


@dataclass(frozen=True)
class ChainBlock:
    """A block of a chain. A chain is a run of similar blocks, each of which can be removed.

    Attributes:
        name: name of the block, e.g. "model.4.m.1".
        chain: name of the chain, e.g. "model.4.m".
        index: position in the chain, from 0.
        length: number of blocks in the chain.
        residual: whether the block adds its input to its output.
        inputs: (channels, height, width) of its input for some image.
        outputs: (channels, height, width) of its output.
        designed: whether the unpruned architecture gives the block equal input and output widths; otherwise its
            shortcut would be built differently.
        ends: names of the convolutions, each with its batch norm, at the end of its branch.
        collapses: whether the only remaining block of a chain takes the name of the chain.
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
        """All blocks of all chains, removable or not, in network order."""
        ...

    def without_blocks(self, kept: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor]) -> nn.Module:
        """The network with only the blocks `kept` (indices by chain) and a copy of the tensors, by name, of any
        shape."""
        ...


@runtime_checkable
class Joining(Protocol):
    """A network with chains in which the output of every block is read, not only the output of the last block."""

    def joined(self, kept: Mapping[str, Sequence[int]], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors or masks, any shape, by name, in which the columns that read a removed block are added to those
        that read its input. Names and all other tensors stay the same."""
        ...


def left_of(network: nn.Module, removal: Removal, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a network, or masks for them, any shape, after a removal and under the new names."""
    joined = network.joined(removal.kept, named) if isinstance(network, Joining) else named
    return removal.tensors(joined)


def chained(network: nn.Module) -> Chained:
    """The network, typed as one with chains.

    Raises:
        UserError: the network has no method that lists its chains.
    """
    if not isinstance(network, Chained):
        raise UserError(
            f"{type(network).__name__} has no chain_blocks(), so layers cannot be removed. "
            "Channel pruning is still possible."
        )
    return network
