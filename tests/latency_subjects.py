"""Latency tables without a clock: every layer takes what a formula says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from secateur.deploy.timing import Stopwatch
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.latency import LatencyTable, Signature, TimedSignature
from secateur.sizes import ImageSize, sides_of

BLOCK = 8
OFFSET, SLOPE = 0.4, 1.25


def law(signature: Signature, reads: int, emits: int, block: int = BLOCK) -> float:
    """Milliseconds of a layer: a fixed part, and one for every pair of blocks and position."""
    blocks = math.ceil(emits / block) * (math.ceil(reads / block) if signature.reads_matter else 1)
    return 0.01 + 1e-4 * blocks * math.prod(signature.map) * math.prod(signature.kernel)


def widest(graph: ChannelGraph, size: ImageSize) -> dict[Signature, tuple[int, int]]:
    """By signature at an image size, the widths of the widest layer."""
    assert graph.image_size is not None
    found: dict[Signature, tuple[int, int]] = {}
    for operation in graph.operations:
        signature = operation.signature.scaled(graph.image_size, sides_of(size))
        known = found.get(signature, (0, 0))
        reads = len(operation.reads) if signature.reads_matter else 0
        found[signature] = max(known[0], reads), max(known[1], len(operation.emits))
    return found


def table_of(graph: ChannelGraph, size: ImageSize = 64, block: int = BLOCK) -> LatencyTable:
    """The table of a network in which all layers follow the law, at every number of blocks."""
    entries = []
    for signature, (reads, emits) in widest(graph, size).items():
        rows = tuple(min(n, reads) for n in range(block, reads + block, block)) or (0,)
        columns = tuple(min(n, emits) for n in range(block, emits + block, block))
        times = tuple(tuple(law(signature, row, column, block) for column in columns) for row in rows)
        entries.append(TimedSignature(signature, rows, columns, times))
    return LatencyTable("a machine", "a runtime 1.0", 2, size, block, tuple(entries), 1.0, SLOPE, OFFSET, 0.99)


@dataclass
class Clock:
    """What a formula says, from the first turn on."""

    times: list[float]
    turns: int = field(default=0)

    def turn(self) -> None:
        self.turns += 1

    def milliseconds(self) -> list[float]:
        return self.times


def layers(signature: Signature, reads: int, emits: Sequence[int], threads: int) -> Clock:
    return Clock([law(signature, reads, width) for width in emits])


def network(model: nn.Module, shape: tuple[int, ...], threads: int) -> Clock:
    """The sum over its layers at its real widths, by the slope, and the offset."""
    graph = trace(model)
    assert graph.image_size is not None
    total = sum(
        law(
            operation.signature.scaled(graph.image_size, (shape[2], shape[3])),
            len(operation.reads),
            len(operation.emits),
        )
        for operation in graph.operations
    )
    return Clock([SLOPE * total + OFFSET])


FAKE = Stopwatch("A Runtime", "", lambda: "1.0", layers, network)
