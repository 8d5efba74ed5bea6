"""Latency of several predictors side by side, and the table of a comparison."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import PREDICTION
from secateur.machine import use_threads


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call: median, 10th and 90th percentile over `runs` calls, each with `images` images."""

    median_ms: float
    p10: float
    p90: float
    runs: int
    images: int = 1

    @property
    def images_per_second(self) -> float:
        """Images a second at the median."""
        return 1000 * self.images / self.median_ms

    def to_dict(self) -> dict[str, float | int]:
        """Plain data for JSON."""
        return asdict(self) | {"images_per_second": self.images_per_second}


@dataclass(frozen=True)
class Comparison:
    """Latencies of calls measured in turns, by name; the first name is the baseline.

    Attributes:
        latencies: one entry a name, in the order given.
        ratios: baseline time / time, the median over rounds (above 1: faster than the baseline). Times drift with the
            machine's load; the two times of one round do so together, so their ratio is steadier than either.
    """

    latencies: dict[str, Latency]
    ratios: dict[str, float]


@dataclass(frozen=True)
class BenchRow:
    """One model of a comparison: how fast it is, and what else is known of it (None: not known).

    Attributes:
        name: as the user wrote it.
        runtime: what ran it, such as "ONNX Runtime".
        latency: its time.
        ratio: how many times as fast as the first one.
        parameters: number of trainable values.
        gflops: billions of operations for one image.
        file_mb: size of the file in megabytes (10^6 bytes).
        accuracy: mAP50-95.
    """

    name: str
    runtime: str
    latency: Latency
    ratio: float
    parameters: int | None = None
    gflops: float | None = None
    file_mb: float | None = None
    accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the latency's figures stand beside the others."""
        data = asdict(self)
        del data["latency"]
        return data | self.latency.to_dict()


def compare(
    calls: Mapping[str, Callable[[], Any]], *, runs: int = 50, warmup: int = 5, threads: int = 0, images: int = 1
) -> Comparison:
    """Times several calls in turns (a, b, a, b, ...), so that a busy machine is busy for all of them.

    Every other round goes through the calls in reverse, so none always follows the same one.

    Args:
        calls: name -> call, which does the work once and returns when it is done; the first is the baseline.
        runs: rounds.
        warmup: rounds before the timed ones.
        threads: PyTorch's threads while measuring; 0 takes what the machine grants (`machine.cpu_threads`). An exported
            file is opened with a number of its own.
        images: images of each call.

    Raises:
        UserError: nothing to measure, `runs` is not positive, or `warmup` or `threads` is negative.
    """
    if not calls or runs < 1 or warmup < 0:
        raise UserError(f"Latency needs something to call, runs of at least 1 (not {runs}) and warmup of 0 or more.")
    names = list(calls)
    seconds = np.zeros((runs, len(names)))
    with _threads(threads), _no_garbage_collection():
        for _ in range(warmup):
            for name in names:
                calls[name]()
        for run in range(runs):
            for column in range(len(names)) if run % 2 == 0 else reversed(range(len(names))):
                start = time.perf_counter()
                calls[names[column]]()
                seconds[run, column] = time.perf_counter() - start
    ratios = np.median(seconds[:, :1] / seconds, axis=0)
    return Comparison(
        {name: _summarise(1000 * seconds[:, column], images) for column, name in enumerate(names)},
        {name: float(ratios[column]) for column, name in enumerate(names)},
    )


def predictor_call(predictor: Predictor, images: Tensor) -> Callable[[], None]:
    """A call that takes images [B, 3, H, W] to decoded rows, as a prediction does, and waits for the result."""
    images = images.to(predictor.device)

    def call() -> None:
        predictor.rows(images, PREDICTION.conf)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    return call


def random_images(size: int | tuple[int, int], batch: int = 1, channels: int = 3) -> Tensor:
    """Noise [B, C, H, W] float32 in 0..1, the same every time."""
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def bench_table(rows: Sequence[BenchRow]) -> str:
    """A line a model under one of headings; what is known of none of them has no column."""
    columns: dict[str, list[str]] = {
        "model": [row.name for row in rows],
        "runtime": [row.runtime for row in rows],
        "ms": [f"{row.latency.median_ms:.2f}" for row in rows],
        "p10-p90": [f"{row.latency.p10:.2f}-{row.latency.p90:.2f}" for row in rows],
        "images/s": [_number(row.latency.images_per_second) for row in rows],
        "speed": [f"{row.ratio:.2f}x" for row in rows],
        "parameters": [f"{row.parameters:,}" if row.parameters is not None else "" for row in rows],
        "GFLOPs": [_number(row.gflops) for row in rows],
        "MB": [_number(row.file_mb) for row in rows],
        "mAP50-95": [f"{row.accuracy:.3f}" if row.accuracy is not None else "" for row in rows],
    }
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    widths = {title: max(len(title), *(len(cell) for cell in cells)) for title, cells in columns.items()}
    lines = []
    for cells in [list(columns), *zip(*columns.values(), strict=True)]:
        parts = [
            f"{cell:<{width}}" if title in ("model", "runtime") else f"{cell:>{width}}"
            for cell, (title, width) in zip(cells, widths.items(), strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Three digits, none of them lost to rounding: 0.131, 4.53, 16.4, 1234."""
    if value is None:
        return ""
    digits = next((digits for digits, limit in ((3, 1), (2, 10), (1, 100)) if abs(value) < limit), 0)
    return f"{value:.{digits}f}"


def _summarise(milliseconds: np.ndarray[Any, Any], images: int) -> Latency:
    low, middle, high = np.percentile(milliseconds, (10, 50, 90))
    return Latency(float(middle), float(low), float(high), len(milliseconds), images)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
