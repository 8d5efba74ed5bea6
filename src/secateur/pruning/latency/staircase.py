"""Milliseconds of any selection of units, from a latency table: a sum of step functions of the widths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.pruning.latency.table import Floats, Ids, LatencyTable, Pair, TracedOperation
from secateur.sizes import sides_of

Bools = NDArray[np.bool_]

_NONE: Ids = np.array([-1], dtype=np.int64)


class Staircase:
    """Times of the operations of one network for every number of channel blocks.

    A width costs as much as the next multiple of the block size, so latency falls in steps. Removing a unit never
    raises it.
    """

    def __init__(self, table: LatencyTable, operations: Sequence[TracedOperation], units: int, traced: Pair) -> None:
        """Args:
            table: latency table of the network, or of the wider network that it was cut from.
            operations: operations of the traced network.
            units: number of units.
            traced: height and width of the traced image.

        Raises:
            UserError: the table was measured for another network or image size.
        """
        self.table, self.operations, self.units = table, operations, units
        sides = sides_of(table.image_size)
        vectors: list[Ids] = []
        times, self._shapes = [], np.empty((len(operations), 2), dtype=np.int64)
        for number, operation in enumerate(operations):
            signature = operation.signature.scaled(traced, sides)
            reads = operation.reads if signature.reads_matter else _NONE
            entry = table.require(
                signature, len(operation.reads) if signature.reads_matter else 0, len(operation.emits)
            )
            vectors += [reads, operation.emits]
            grid = [np.arange(1, -(-len(ids) // table.block) + 1) * table.block for ids in (reads, operation.emits)]
            self._shapes[number] = len(grid[0]), len(grid[1])
            times.append(entry.at(*grid).ravel())
        self._entries = np.concatenate(vectors or [_NONE])
        self._starts = np.cumsum([0] + [len(vector) for vector in vectors[:-1]])
        self._times = np.concatenate(times or [np.zeros(1)])
        self._bases = np.cumsum([0] + [len(part) for part in times[:-1]])[: len(operations)]

    def price(self, keep: Bools) -> float:
        """Milliseconds of the network that keeps these units, bool [units]."""
        return self.table.slope * float(self.per_operation(keep).sum()) + self.table.offset

    def per_operation(self, keep: Bools) -> Floats:
        """Milliseconds of every operation from the table, float64 [operations], before the fit to whole networks.

        Args:
            keep: bool [units].
        """
        blocks = self._blocks(self._counts(keep))
        return self._at(blocks[:, 0], blocks[:, 1])

    def inside(self, module: str) -> float:
        """Milliseconds of the operations inside a module, in the network as it is."""
        inside = np.array([operation.lies_inside(module) for operation in self.operations], dtype=bool)
        everything = np.ones(self.units, dtype=bool)
        return self.table.slope * float(self.per_operation(everything)[inside].sum())

    def savings(self) -> Floats:
        """Average saving per unit on the way to half the width of its layers: float64 [units], in milliseconds.

        Removing a single channel saves nothing until its block is empty. The slope to half the width is also more
        stable than that of the last step, which is a small difference of two measured times.
        """
        counts = self._counts(np.ones(self.units, dtype=bool))
        full = self._blocks(counts)
        half = np.maximum(1, (full + 1) // 2)
        dense = self._at(full[:, 0], full[:, 1])
        narrower = np.stack([self._at(half[:, 0], full[:, 1]), self._at(full[:, 0], half[:, 1])], axis=1)
        gone = np.maximum(counts - half * self.table.block, 1)
        per_channel = np.where(full > half, np.maximum(dense[:, None] - narrower, 0) / gone, 0.0).ravel()
        per_entry = np.repeat(per_channel, np.diff(np.append(self._starts, len(self._entries))))
        used = self._entries >= 0
        saved = np.bincount(self._entries[used], weights=per_entry[used], minlength=self.units)
        return self.table.slope * saved.astype(np.float64)

    def _at(self, reads: Ids, emits: Ids) -> Floats:
        """Times of all operations for numbers of blocks: [operations]."""
        found: Floats = self._times[self._bases + (reads - 1) * self._shapes[:, 1] + emits - 1]
        return found

    def _counts(self, keep: Bools) -> Ids:
        """Kept channels that each operation reads and emits: [operations, 2]; index -1 (frozen) reads the last
        entry."""
        if not self.operations:
            return np.zeros((0, 2), dtype=np.int64)
        kept = np.append(keep, True)[self._entries].astype(np.int64)
        return np.maximum(np.add.reduceat(kept, self._starts), 1).reshape(-1, 2)

    def _blocks(self, widths: Ids) -> Ids:
        return -(-widths // self.table.block)
