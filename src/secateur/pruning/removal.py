"""Which blocks leave their chains, and what that does to names and topology.

A chain is a run of like blocks: inside a stage ("model.2.m", members "model.2.m.0", "model.2.m.1", ...) or a repeated
row of the topology ("model.4", members "model.4.0", ...; a row of one block is its own member, "model.4").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from secateur.detector.topology import MAX_REPEATS, Block, Topology
from secateur.errors import UserError

T = TypeVar("T")


def is_row(chain: str) -> bool:
    """Whether the chain is a row of the topology ("model.4") and not inside a stage ("model.4.m")."""
    return chain.count(".") == 1


def member_name(chain: str, index: int, length: int) -> str:
    """Name of one block of a chain of this length."""
    return chain if is_row(chain) and length == 1 else f"{chain}.{index}"


@dataclass(frozen=True)
class Removal:
    """Blocks that go, by the names that they have before, and the lengths that their chains have before.

    Raises:
        UserError: a block is in none of the chains.
    """

    blocks: tuple[str, ...] = ()
    lengths: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not all(1 <= length <= MAX_REPEATS for _, length in self.lengths):
            raise UserError(f"A chain of blocks has between 1 and {MAX_REPEATS} of them.")
        known = {member_name(chain, i, n) for chain, n in self.lengths for i in range(n)}
        unknown = sorted(set(self.blocks) - known)
        if unknown:
            raise UserError(f"There is no block {unknown[0]} in a chain of blocks that could be removed.")

    @staticmethod
    def of(blocks: Iterable[str], lengths: Mapping[str, int]) -> Removal:
        """The removal of these blocks, in the order of `lengths` (all chains of the network, in its order)."""
        gone = set(blocks)
        ordered: list[str] = []
        touched: list[tuple[str, int]] = []
        for chain, length in lengths.items():
            inside = [name for i in range(length) if (name := member_name(chain, i, length)) in gone]
            ordered += inside
            if inside:
                touched.append((chain, length))
        return Removal((*ordered, *sorted(gone - set(ordered))), tuple(touched))

    @cached_property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """Indices of the blocks that stay, by chain."""
        gone = set(self.blocks)
        return {
            chain: tuple(i for i in range(length) if member_name(chain, i, length) not in gone)
            for chain, length in self.lengths
        }

    def renamed(self, name: str) -> str | None:
        """Name, after the removal, of a block, layer or tensor in the network before; None if it is gone."""
        for chain, length in self.lengths:
            kept = self.kept[chain]
            for i in range(length):
                rest = _inside(name, member_name(chain, i, length))
                if rest is not None:
                    return member_name(chain, kept.index(i), len(kept)) + rest if i in kept else None
        return name

    def original(self, name: str) -> str:
        """Name, before the removal, of a block, layer or tensor in the network after: the inverse of `renamed`."""
        for chain, length in self.lengths:
            kept = self.kept[chain]
            for place, i in enumerate(kept):
                rest = _inside(name, member_name(chain, place, len(kept)))
                if rest is not None:
                    return member_name(chain, i, length) + rest
        return name

    def then(self, later: Removal) -> Removal:
        """Both removals as one that speaks of the first network; `later` speaks of the network that this one leaves."""
        lengths = dict(self.lengths)
        for chain, length in later.lengths:
            lengths.setdefault(chain, length)
        return Removal((*self.blocks, *(self.original(block) for block in later.blocks)), tuple(lengths.items()))

    def tensors(self, named: Mapping[str, T]) -> dict[str, T]:
        """What is kept by tensor name (tensors, masks), without the removed blocks and under the new names."""
        renamed = ((self.renamed(name), value) for name, value in named.items())
        return {name: value for name, value in renamed if name is not None}

    def topology(self, topology: Topology) -> Topology:
        """The topology without the blocks; a row that loses all becomes an identity, so that numbers stay."""
        rows = list(topology.blocks)
        for chain, kept in self.kept.items():
            number = int(chain.split(".")[1])
            row = replace(rows[number], repeats=len(kept))
            rows[number] = row if kept or not is_row(chain) else Block(row.sources, 1, "nn.Identity", ())
        return replace(topology, blocks=tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"removed_blocks": list(self.blocks), "chain_lengths": dict(self.lengths)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Removal:
        """Reads what `to_dict` gave; data without its keys removes nothing."""
        lengths = {str(chain): int(length) for chain, length in data.get("chain_lengths", {}).items()}
        return Removal(tuple(str(name) for name in data.get("removed_blocks", ())), tuple(lengths.items()))


def _inside(name: str, block: str) -> str | None:
    """What follows a block's name in that of a part of it ("" for the block itself), or None."""
    rest = name[len(block) :]
    return rest if name.startswith(block) and rest[:1] in ("", ".") else None
