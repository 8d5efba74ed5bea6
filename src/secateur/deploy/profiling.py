"""Tells where the time of a file goes, layer by layer, on the CPU. Each runtime is a `Profiler` of a module
in `formats/`, by what the names of its files end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from secateur.deploy.timing import Timing
from secateur.evaluation.cost import LayerWork
from secateur.registry import Registry

Sides = tuple[int, int]


@dataclass(frozen=True)
class LayerTime:
    """The time of one layer, its activation among it, or of what is between the layers.

    Attributes:
        name: of the module in the detector; in parentheses where no module is the one.
        kind: as `LayerWork` says it, or the operation ("concat").
        ms: milliseconds of one call.
        work: of a convolution or linear layer for one image; None for all else.
    """

    name: str
    kind: str
    ms: float
    work: LayerWork | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        shape: dict[str, Any] = {}
        if self.work is not None:
            work = self.work
            shape = {"reads": work.reads, "emits": work.emits, "map": list(work.map), "gflops": work.flops / 1e9}
        return {"layer": self.name, "kind": self.kind, "ms": self.ms, **shape}


class Profiling(Timing, Protocol):
    """A file being timed layer by layer; what has been seen so far counts together."""

    def layers(self) -> list[LayerTime]:
        """All that a call consists of, in the order in which it is computed."""
        ...


@dataclass(frozen=True)
class Profiler:
    """How the files of one runtime are looked into.

    Attributes:
        work: file, height and width of its images -> what every convolution and linear layer does, by name; empty where
            that cannot be told.
        open: file, shape [B, C, H, W] of its images and threads -> its layers, ready to be timed.
    """

    work: Callable[[Path, Sides], dict[str, LayerWork]]
    open: Callable[[Path, tuple[int, ...], int], Profiling]


PROFILERS: Registry[Profiler] = Registry("runtime with layers", "secateur.deploy.formats", __name__)


def profiler_of(file: str | Path) -> Profiler | None:
    """What looks into a file, by the end of its name; None where nothing does."""
    name = Path(file).name.lower()
    return next((profiler for ending, profiler in PROFILERS.items() if name.endswith(ending)), None)
