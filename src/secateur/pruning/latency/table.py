"""Latency tables: milliseconds of every kind of layer on a grid of widths, for one machine and runtime, as plain data.

A runtime processes channels in blocks of the SIMD width, so time is a step function of the width. A table holds the
times at some widths for every `Signature` of a network, and a fit to whole networks: `ms = slope x (sum over the
operations) + offset`. The offset covers the time outside of the operations (decoding, reordering, scheduling).
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
"""A table whose fit explains less of the variance of measured networks than this cannot predict other networks."""
_FORMAT = 1


@dataclass(frozen=True)
class Signature:
    """Everything that determines the time of a layer except its widths.

    Attributes:
        kind: "conv", "transposed" (convolution), "concat", "add", "pool" or "upsample".
        map: height and width of the input map; for a concat or a sum, of the output map.
        kernel, stride, padding, dilation: of convolutions and pooling; the stride of an upsampling is its factor.
        per_group: input and output channels per group of a grouped convolution; (0, 0) without groups.
        activation: ATen name of the activation of a convolution ("silu"); "" for none.
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
        """Whether the input width is independent of the output width."""
        return self.kind in ("conv", "transposed") and self.per_group == (0, 0)

    def scaled(self, traced: Pair, sides: Pair) -> Signature:
        """The signature at another image size: from `traced` to `sides` pixels."""
        height, width = (max(1, round(self.map[i] * sides[i] / traced[i])) for i in (0, 1))
        return replace(self, map=(height, width))

    def __str__(self) -> str:
        size = "x".join(map(str, self.kernel))
        return f"{self.kind} {size} on a map of {self.map[0]}x{self.map[1]}"


@dataclass(frozen=True, eq=False)
class TracedOperation:
    """One operation of a traced network, as used by a latency table.

    Attributes:
        signature: signature at the traced size.
        weight: name of its weight; "" if it has none.
        place: name of the module that computes it.
        reads: unit of each input channel, int64 [channels] (-1: none); empty if only the output width matters.
        emits: unit of each output channel, int64 [channels] (-1: none).
    """

    signature: Signature
    weight: str
    place: str
    reads: Ids
    emits: Ids

    def lies_inside(self, module: str) -> bool:
        """Whether the module with this name, or a module inside it, computes the operation."""
        return f"{self.weight or self.place}.".startswith(f"{module}.")


@dataclass(frozen=True)
class TimedSignature:
    """Measured times of one signature.

    Attributes:
        signature: signature at the image size of the table.
        reads: input widths, ascending; (0,) if only the output width matters.
        emits: output widths, ascending.
        ms: milliseconds, [reads][emits].
    """

    signature: Signature
    reads: tuple[int, ...]
    emits: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    @cached_property
    def monotone(self) -> Floats:
        """The times, float64 [reads, emits], each limited to the time of wider layers, because background load only
        adds time."""
        times = np.array(self.ms, dtype=np.float64)
        for axis in (0, 1):
            times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis), axis)
        return times

    def at(self, reads: Ids, emits: Ids) -> Floats:
        """Times interpolated linearly along both widths: float64 [len(reads), len(emits)]."""
        rows = np.array([np.interp(emits, self.emits, row) for row in self.monotone])
        return np.array([np.interp(reads, self.reads, column) for column in rows.T]).T.reshape(len(reads), len(emits))


@dataclass(frozen=True)
class LatencyTable:
    """Times of all layers of one network at all widths up to its own, on one machine, at batch size 1.

    Attributes:
        machine: description of the processor.
        runtime: name and version of the runtime ("ONNX Runtime 1.22.0").
        threads: threads per operator.
        image_size: side of the square image in pixels, or height and width.
        block: number of channels that the runtime processes at once; a width costs as much as the next multiple.
        entries: the times, one entry per signature.
        dense: milliseconds of the whole network.
        slope, offset: `ms = slope x sum + offset` for whole networks.
        r2: share of the variance of measured networks that the fit explains.
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
        """The entries by signature."""
        return {entry.signature: entry for entry in self.entries}

    def require(self, signature: Signature, reads: int, emits: int) -> TimedSignature:
        """The entry for a layer with these widths.

        Raises:
            UserError: the table was measured for another network or image size.
        """
        entry = self.by_signature.get(signature)
        if entry is None or reads > entry.reads[-1] > 0 or emits > entry.emits[-1]:
            raise UserError(
                "The latency table is for another network or image size "
                f"({in_words(self.image_size)} px): it has no {signature} with {emits} channels. Measure one for this "
                "network with `secateur latency`."
            )
        return entry

    def fitted(self, slope: float, offset: float, r2: float, dense: float) -> LatencyTable:
        """The table with the fit to whole networks.

        Raises:
            UserError: the fit explains too little of the variance.
        """
        if not r2 >= LEAST_R2 or not slope > 0:
            raise UserError(
                f"The latency table explains only {max(r2, 0):.0%} of the variance of whole networks in {self.runtime} "
                f"({LEAST_R2:.0%} are needed). Measure again when the machine is less busy."
            )
        return replace(self, slope=slope, offset=offset, r2=r2, dense=dense)

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return {"format": _FORMAT, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Writes a JSON file atomically."""
        write_json(path, self.to_dict())

    @staticmethod
    def from_dict(data: Any, source: str = "The latency table") -> LatencyTable:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data is not a latency table, or contains impossible numbers.
        """
        try:
            if data["format"] != _FORMAT:
                raise UserError(f"{source} has format {shown(data['format'])}; this version reads format {_FORMAT}.")
            own = {entry.name: data[entry.name] for entry in fields(LatencyTable) if entry.name in data}
            own |= {"entries": tuple(map(_entry, data["entries"])), "image_size": _size(data["image_size"])}
            table = LatencyTable(**own)
            flaw = _flaw(table)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{source} is not a valid latency table ({type(error).__name__}: {told(error)})."
            ) from error
        if flaw:
            raise UserError(f"{source} cannot be used: {told(flaw)}.")
        return table.fitted(table.slope, table.offset, table.r2, table.dense)

    @staticmethod
    def load(path: str | Path) -> LatencyTable:
        """Reads a file written by `save` on this or another machine.

        Raises:
            UserError: the file cannot be read or is not a latency table.
        """
        return LatencyTable.from_dict(read_json(path), str(path))


def _entry(data: Mapping[str, Any]) -> TimedSignature:
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data["signature"].items()
    }
    times = tuple(tuple(float(value) for value in row) for row in data["ms"])
    return TimedSignature(Signature(**known), tuple(map(int, data["reads"])), tuple(map(int, data["emits"])), times)


def _size(value: Any) -> Any:
    """Converts JSON lists to pairs. `_flaw` reports values that are not a size."""
    return tuple(value) if isinstance(value, list) and len(value) == 2 else value


def _flaw(table: LatencyTable) -> str:
    """Describes the first invalid value of a table; "" if the table is valid."""
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
            return f"the times of {entry.signature} do not match its widths"
        if not all(math.isfinite(value) and value >= 0 for row in entry.ms for value in row):
            return f"a time of {entry.signature} is not a valid number of milliseconds"
    return ""
