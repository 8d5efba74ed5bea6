"""Latency of one network, or of several side by side."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import UserError


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call: median, 10th and 90th percentile over `runs` calls."""

    median_ms: float
    p10: float
    p90: float
    runs: int

    def to_dict(self) -> dict[str, float | int]:
        """Plain data for JSON."""
        return {"median_ms": self.median_ms, "p10": self.p10, "p90": self.p90, "runs": self.runs}


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


def latency(call: Callable[[], Any], *, runs: int = 50, warmup: int = 5, threads: int | None = None) -> Latency:
    """Times one call again and again.

    Args:
        call: does the work once and returns when it is done (on CUDA: synchronises).
        runs: timed calls.
        warmup: calls before the timed ones.
        threads: PyTorch threads while measuring; None leaves them as they are. (A session of ONNX Runtime brings its
            own number of threads.)

    Raises:
        UserError: `runs` is not positive or `warmup` is negative.
    """
    return compare({"": call}, runs=runs, warmup=warmup, threads=threads).latencies[""]


def compare(
    calls: Mapping[str, Callable[[], Any]], *, runs: int = 50, warmup: int = 5, threads: int | None = None
) -> Comparison:
    """Times several calls in turns (a, b, a, b, ...), so that a busy machine is busy for all of them.

    Every other round goes through the calls in reverse, so none always follows the same one.

    Args:
        calls: name -> call; the first is the baseline of the ratios.
        runs: rounds.
        warmup: rounds before the timed ones.
        threads: PyTorch threads while measuring; None leaves them as they are.

    Raises:
        UserError: nothing to measure, `runs` is not positive or `warmup` is negative.
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
        {name: _summarise(1000 * seconds[:, column]) for column, name in enumerate(names)},
        {name: float(ratios[column]) for column, name in enumerate(names)},
    )


def network_call(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """A call that runs a network (put it in evaluation mode and lay it out first) and waits for the result."""

    def call() -> None:
        with torch.inference_mode():
            network(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    return call


def _summarise(milliseconds: np.ndarray[Any, Any]) -> Latency:
    low, middle, high = np.percentile(milliseconds, (10, 50, 90))
    return Latency(float(middle), float(low), float(high), len(milliseconds))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        if count < 1:
            raise UserError(f"The number of threads must be positive, not {count}.")
        torch.set_num_threads(count)
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
