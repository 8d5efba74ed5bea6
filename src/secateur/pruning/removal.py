"""Removal of blocks from their chains, and the resulting names.

A chain is a run of similar blocks with numbered members ("model.2.m.0", "model.2.m.1", ...). In some architectures, the
only remaining block takes the name of the chain ("model.4.0" becomes "model.4"): such a chain collapses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from secateur.errors import UserError

MAX_LENGTH = 1000
"""Maximum number of blocks of a chain in a file, as protection against damaged files."""

T = TypeVar("T")


@dataclass(frozen=True)
class Removal:
    """Blocks to remove.

    Attributes:
        blocks: names of the blocks, before the removal.
        lengths: names of the affected chains, and their lengths before the removal.
        collapsing: names of those chains that collapse.

    Raises:
        UserError: a block is in none of the chains.
    """

    blocks: tuple[str, ...] = ()
    lengths: tuple[tuple[str, int], ...] = ()
    collapsing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(1 <= length <= MAX_LENGTH for _, length in self.lengths):
            raise UserError(f"A chain must have between 1 and {MAX_LENGTH} blocks.")
        known = {self.member(chain, i, n) for chain, n in self.lengths for i in range(n)}
        unknown = sorted(set(self.blocks) - known)
        if unknown:
            raise UserError(f"{unknown[0]} is not a removable block of a chain.")

    @staticmethod
    def of(blocks: Iterable[str], lengths: Mapping[str, int], collapsing: Iterable[str] = ()) -> Removal:
        """The removal of these blocks; `lengths` holds all chains of the network, in network order."""
        gone, collapsing = set(blocks), set(collapsing)
        ordered: list[str] = []
        touched: list[tuple[str, int]] = []
        for chain, length in lengths.items():
            inside = [name for i in range(length) if (name := _member(chain, i, length, chain in collapsing)) in gone]
            ordered += inside
            if inside:
                touched.append((chain, length))
        collapsed = tuple(chain for chain, _ in touched if chain in collapsing)
        return Removal((*ordered, *sorted(gone - set(ordered))), tuple(touched), collapsed)

    def member(self, chain: str, index: int, length: int) -> str:
        """Name of one block of a chain of this length."""
        return _member(chain, index, length, chain in self.collapsing)

    @cached_property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """Indices of the kept blocks, by chain."""
        gone = set(self.blocks)
        return {
            chain: tuple(i for i in range(length) if self.member(chain, i, length) not in gone)
            for chain, length in self.lengths
        }

    def renamed(self, name: str) -> str | None:
        """Name of a block, layer or tensor after the removal; None if it is removed."""
        for chain, length in self.lengths:
            kept = self.kept[chain]
            for i in range(length):
                rest = _inside(name, self.member(chain, i, length))
                if rest is not None:
                    return self.member(chain, kept.index(i), len(kept)) + rest if i in kept else None
        return name

    def original(self, name: str) -> str:
        """Name of a block, layer or tensor before the removal: the inverse of `renamed`."""
        for chain, length in self.lengths:
            kept = self.kept[chain]
            for place, i in enumerate(kept):
                rest = _inside(name, self.member(chain, place, len(kept)))
                if rest is not None:
                    return self.member(chain, i, length) + rest
        return name

    def then(self, later: Removal) -> Removal:
        """Both removals as one for the first network; `later` refers to the network that this removal leaves."""
        lengths = dict(self.lengths)
        for chain, length in later.lengths:
            lengths.setdefault(chain, length)
        collapsing = tuple(dict.fromkeys((*self.collapsing, *later.collapsing)))
        blocks = (*self.blocks, *(self.original(block) for block in later.blocks))
        return Removal(blocks, tuple(lengths.items()), collapsing)

    def tensors(self, named: Mapping[str, T]) -> dict[str, T]:
        """Entries by tensor name (tensors, masks), without removed blocks and under the new names."""
        renamed = ((self.renamed(name), value) for name, value in named.items())
        return {name: value for name, value in renamed if name is not None}

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return {
            "removed_blocks": list(self.blocks),
            "chain_lengths": dict(self.lengths),
            "collapsing_chains": list(self.collapsing),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Removal:
        """Reads the output of `to_dict`; data without its keys removes nothing."""
        lengths = {str(chain): int(length) for chain, length in data.get("chain_lengths", {}).items()}
        # In older files, only rows of a topology ("model.4") have chains, and these collapse.
        rows = [chain for chain in lengths if chain.count(".") == 1]
        blocks, collapsing = data.get("removed_blocks", ()), data.get("collapsing_chains", rows)
        return Removal(tuple(map(str, blocks)), tuple(lengths.items()), tuple(map(str, collapsing)))


def _member(chain: str, index: int, length: int, collapses: bool) -> str:
    return chain if collapses and length == 1 else f"{chain}.{index}"


def _inside(name: str, block: str) -> str | None:
    """The part of a name after the block name ("" for the block itself); None if the name is not in the block."""
    rest = name[len(block) :]
    return rest if name.startswith(block) and rest[:1] in ("", ".") else None
