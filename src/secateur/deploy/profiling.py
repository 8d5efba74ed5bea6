"""Profiles files layer by layer on the CPU. Each runtime is a `Profiler` in a module of `formats/`, by file ending."""

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
    """The time of one layer including its activation, or of the work between layers.

    Attributes:
        name: module name in the detector; in parentheses if there is no single module.
        kind: kind from `LayerWork`, or the operation ("concat").
        ms: milliseconds per call.
        work: work of a convolution or linear layer for one image; None for others.
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
    """A file being profiled layer by layer. Measurements accumulate over turns."""

    def layers(self) -> list[LayerTime]:
        """All layers of a call, in execution order."""
        ...


@dataclass(frozen=True)
class Profiler:
    """Profiler of one runtime.

    Attributes:
        work: file, and height and width of its images -> work of every convolution and linear layer by name; empty if
            unknown.
        open: file, shape [B, C, H, W] of its images, and threads -> its layers, ready to be timed.
    """

    work: Callable[[Path, Sides], dict[str, LayerWork]]
    open: Callable[[Path, tuple[int, ...], int], Profiling]


PROFILERS: Registry[Profiler] = Registry("runtime with layers", "secateur.deploy.formats", __name__)


def profiler_of(file: str | Path) -> Profiler | None:
    """The profiler for a file, by the end of its name; None if there is none."""
    name = Path(file).name.lower()
    return next((profiler for ending, profiler in PROFILERS.items() if name.endswith(ending)), None)
