"""Which blocks leave their chains, and what that does to names.

A chain is a run of like blocks with numbered members ("model.2.m.0", "model.2.m.1", ...). In some architectures a block
that is left alone takes the chain's own name ("model.4.0" becomes "model.4"): such a chain collapses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from secateur.errors import UserError

MAX_LENGTH = 1000
"""Blocks of a chain that a file may name: more would only cost time."""

T = TypeVar("T")


@dataclass(frozen=True)
class Removal:
    """Blocks that go.

    Attributes:
        blocks: their names, before they go.
        lengths: names and lengths, before, of the chains that they leave.
        collapsing: names of those chains that collapse.

    Raises:
        UserError: a block is in none of the chains.
    """

    blocks: tuple[str, ...] = ()
    lengths: tuple[tuple[str, int], ...] = ()
    collapsing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(1 <= length <= MAX_LENGTH for _, length in self.lengths):
            raise UserError(f"A chain of blocks has between 1 and {MAX_LENGTH} of them.")
        known = {self.member(chain, i, n) for chain, n in self.lengths for i in range(n)}
        unknown = sorted(set(self.blocks) - known)
        if unknown:
            raise UserError(f"There is no block {unknown[0]} in a chain of blocks that could be removed.")

    @staticmethod
    def of(blocks: Iterable[str], lengths: Mapping[str, int], collapsing: Iterable[str] = ()) -> Removal:
        """The removal of these blocks, in the order of `lengths` (all chains of the network, in its order)."""
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
        """Indices of the blocks that stay, by chain."""
        gone = set(self.blocks)
        return {
            chain: tuple(i for i in range(length) if self.member(chain, i, length) not in gone)
            for chain, length in self.lengths
        }

    def renamed(self, name: str) -> str | None:
        """Name, after the removal, of a block, layer or tensor in the network before; None if it is gone."""
        for chain, length in self.lengths:
            kept = self.kept[chain]
            for i in range(length):
                rest = _inside(name, self.member(chain, i, length))
                if rest is not None:
                    return self.member(chain, kept.index(i), len(kept)) + rest if i in kept else None
        return name

    def original(self, name: str) -> str:
        """Name, before the removal, of a block, layer or tensor in the network after: the inverse of `renamed`."""
        for chain, length in self.lengths:
            kept = self.kept[chain]
            for place, i in enumerate(kept):
                rest = _inside(name, self.member(chain, place, len(kept)))
                if rest is not None:
                    return self.member(chain, i, length) + rest
        return name

    def then(self, later: Removal) -> Removal:
        """Both removals as one that speaks of the first network; `later` speaks of the network that this one leaves."""
        lengths = dict(self.lengths)
        for chain, length in later.lengths:
            lengths.setdefault(chain, length)
        collapsing = tuple(dict.fromkeys((*self.collapsing, *later.collapsing)))
        blocks = (*self.blocks, *(self.original(block) for block in later.blocks))
        return Removal(blocks, tuple(lengths.items()), collapsing)

    def tensors(self, named: Mapping[str, T]) -> dict[str, T]:
        """What is kept by tensor name (tensors, masks), without the removed blocks and under the new names."""
        renamed = ((self.renamed(name), value) for name, value in named.items())
        return {name: value for name, value in renamed if name is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "removed_blocks": list(self.blocks),
            "chain_lengths": dict(self.lengths),
            "collapsing_chains": list(self.collapsing),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Removal:
        """Reads what `to_dict` gave; data without its keys removes nothing."""
        lengths = {str(chain): int(length) for chain, length in data.get("chain_lengths", {}).items()}
        # Files of before other architectures had chains: rows of a topology, "model.4", collapse.
        rows = [chain for chain in lengths if chain.count(".") == 1]
        blocks, collapsing = data.get("removed_blocks", ()), data.get("collapsing_chains", rows)
        return Removal(tuple(map(str, blocks)), tuple(lengths.items()), tuple(map(str, collapsing)))


def _member(chain: str, index: int, length: int, collapses: bool) -> str:
    return chain if collapses and length == 1 else f"{chain}.{index}"


def _inside(name: str, block: str) -> str | None:
    """What follows a block's name in that of a part of it ("" for the block itself), or None."""
    rest = name[len(block) :]
    return rest if name.startswith(block) and rest[:1] in ("", ".") else None
