"""Latency tables: milliseconds of every kind of layer at a grid of widths, on one machine in one runtime; plain data.

A runtime works on channels in blocks of the SIMD width, so time over width is a staircase. A table holds it at some
widths for every `Signature` that a network has, and `ms = slope x (sum over the operations) + offset`, fitted to whole
networks: what the operations do not tell (decoding, reordering, the walk from layer to layer) is in `offset`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError, shown, told
from secateur.files import read_json, write_json
from secateur.sizes import ImageSize, in_words

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Pair = tuple[int, int]

LEAST_R2 = 0.95
"""A table whose sums explain less of the measured networks than this tells nothing about the next one."""
_FORMAT = 1


@dataclass(frozen=True)
class Signature:
    """What two layers have in common whose time differs by their widths alone.

    Attributes:
        kind: "conv", "transposed" (convolution), "concat", "add", "pool" or "upsample".
        map: height and width of the map that is read; of a concat or a sum, of the map that is written.
        kernel, stride, padding, dilation: of convolutions and pooling; the stride of an upsampling is its factor.
        per_group: channels read and emitted by one group of a grouped convolution; (0, 0) without groups.
        activation: of a convolution, by its ATen name ("silu"); "" for none.
    """

    kind: str
    map: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    per_group: Pair = (0, 0)
    activation: str = ""

    @property
    def reads_matter(self) -> bool:
        """Whether the width that is read is free of the one that is emitted."""
        return self.kind in ("conv", "transposed") and self.per_group == (0, 0)

    def scaled(self, traced: Pair, sides: Pair) -> Signature:
        """The same for another size of the image: from `traced` to `sides` pixels."""
        height, width = (max(1, round(self.map[i] * sides[i] / traced[i])) for i in (0, 1))
        return replace(self, map=(height, width))

    def __str__(self) -> str:
        size = "x".join(map(str, self.kernel))
        return f"{self.kind} {size} on a map of {self.map[0]}x{self.map[1]}"


@dataclass(frozen=True, eq=False)
class TracedOperation:
    """One operation of a traced network, as a latency table sees it.

    Attributes:
        signature: at the traced size.
        weight: name of its weight; "" where it has none.
        place: name of the module that computes it.
        reads: unit of each channel that it reads (-1: none); empty where only what it emits matters.
        emits: unit of each channel that it emits (-1: none).
    """

    signature: Signature
    weight: str
    place: str
    reads: Ids
    emits: Ids

    def lies_inside(self, module: str) -> bool:
        """Whether it is computed by the module of this name, or inside it."""
        return f"{self.weight or self.place}.".startswith(f"{module}.")


@dataclass(frozen=True)
class TimedSignature:
    """The measured times of one signature.

    Attributes:
        signature: at the image size of the table.
        reads: widths that were read, ascending; (0,) where only what is emitted matters.
        emits: widths that were emitted, ascending.
        ms: milliseconds, [reads][emits].
    """

    signature: Signature
    reads: tuple[int, ...]
    emits: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    @cached_property
    def monotone(self) -> Floats:
        """The times, [reads, emits], none above that of a wider layer: disturbances only ever add time."""
        times = np.array(self.ms, dtype=np.float64)
        for axis in (0, 1):
            times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis), axis)
        return times

    def at(self, reads: Ids, emits: Ids) -> Floats:
        """Times between the grid's points, linear along both widths, [len(reads), len(emits)]."""
        rows = np.array([np.interp(emits, self.emits, row) for row in self.monotone])
        return np.array([np.interp(reads, self.reads, column) for column in rows.T]).T.reshape(len(reads), len(emits))


@dataclass(frozen=True)
class LatencyTable:
    """Times of all layers of one network at all widths up to its own, on one machine, at batch 1.

    Attributes:
        machine: the processor, in words.
        runtime: name and version of what was timed ("ONNX Runtime 1.22.0").
        threads: threads inside an operator.
        image_size: side of the square image in pixels, or height and width of another.
        block: channels that the runtime works on at once; a width costs what the next multiple costs.
        entries: the times, one entry a signature.
        dense: milliseconds of the whole network.
        slope, offset: `ms = slope x sum + offset` for whole networks.
        r2: share of the variance of measured networks that this explains.
    """

    machine: str
    runtime: str
    threads: int
    image_size: ImageSize
    block: int
    entries: tuple[TimedSignature, ...]
    dense: float = 0.0
    slope: float = 1.0
    offset: float = 0.0
    r2: float = 1.0

    @cached_property
    def by_signature(self) -> dict[Signature, TimedSignature]:
        """The entries by what they are of."""
        return {entry.signature: entry for entry in self.entries}

    def require(self, signature: Signature, reads: int, emits: int) -> TimedSignature:
        """The entry of a layer of these widths.

        Raises:
            UserError: the table was measured for another network or image size.
        """
        entry = self.by_signature.get(signature)
        if entry is None or reads > entry.reads[-1] > 0 or emits > entry.emits[-1]:
            raise UserError(
                "The latency table is for another network or image size (its own is "
                f"{in_words(self.image_size)} px): it has no {signature} with {emits} channels; measure one "
                "with secateur latency."
            )
        return entry

    def fitted(self, slope: float, offset: float, r2: float, dense: float) -> LatencyTable:
        """The table with the fit to whole networks.

        Raises:
            UserError: the fit is too poor to be trusted.
        """
        if not r2 >= LEAST_R2 or not slope > 0:
            raise UserError(
                f"The latency table explains only {max(r2, 0):.0%} of the variance of whole networks in {self.runtime} "
                f"({LEAST_R2:.0%} are needed); measure again when this machine has less else to do."
            )
        return replace(self, slope=slope, offset=offset, r2=r2, dense=dense)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"format": _FORMAT, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Writes a JSON file, whole or not at all."""
        write_json(path, self.to_dict())

    @staticmethod
    def from_dict(data: Any, source: str = "The latency table") -> LatencyTable:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data is no table, or one with numbers that cannot be.
        """
        try:
            if data["format"] != _FORMAT:
                raise UserError(f"{source} has format {shown(data['format'])}; this version reads format {_FORMAT}.")
            own = {entry.name: data[entry.name] for entry in fields(LatencyTable) if entry.name in data}
            own |= {"entries": tuple(map(_entry, data["entries"])), "image_size": _size(data["image_size"])}
            table = LatencyTable(**own)
            flaw = _flaw(table)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{source} is no latency table ({type(error).__name__}: {told(error)}).") from error
        if flaw:
            raise UserError(f"{source} cannot be used: {told(flaw)}.")
        return table.fitted(table.slope, table.offset, table.r2, table.dense)

    @staticmethod
    def load(path: str | Path) -> LatencyTable:
        """Reads a file that `save` wrote, here or on another machine.

        Raises:
            UserError: it cannot be read, or is no table.
        """
        return LatencyTable.from_dict(read_json(path), str(path))


def _entry(data: Mapping[str, Any]) -> TimedSignature:
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data["signature"].items()
    }
    times = tuple(tuple(float(value) for value in row) for row in data["ms"])
    return TimedSignature(Signature(**known), tuple(map(int, data["reads"])), tuple(map(int, data["emits"])), times)


def _size(value: Any) -> Any:
    """JSON has lists for pairs; what is no size at all is found with the other flaws."""
    return tuple(value) if isinstance(value, list) and len(value) == 2 else value


def _flaw(table: LatencyTable) -> str:
    """What cannot be in a table, in words; "" for a sound one."""
    sides = table.image_size if isinstance(table.image_size, tuple) else (table.image_size,)
    counts = [("threads", table.threads), *(("image_size", side) for side in sides), ("block", table.block)]
    for name, count in counts:
        if not isinstance(count, int) or count < 1:
            return f"{name} is {count}"
    if not all(math.isfinite(value) for value in (table.slope, table.offset, table.r2, table.dense)):
        return "its fit has numbers that are not finite"
    for entry in table.entries:
        for axis in (entry.reads, entry.emits):
            if not axis or list(axis) != sorted(set(axis)) or axis[0] < 0:
                return f"the widths of {entry.signature} do not ascend"
        shape = {len(row) for row in entry.ms}
        if len(entry.ms) != len(entry.reads) or shape != {len(entry.emits)}:
            return f"the times of {entry.signature} are not one for each width"
        if not all(math.isfinite(value) and value >= 0 for row in entry.ms for value in row):
            return f"a time of {entry.signature} is no number of milliseconds"
    return ""
