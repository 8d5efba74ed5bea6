"""Latency of several predictors in interleaved rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
    """Milliseconds per call: median, 10th and 90th percentile over `runs` calls with `images` images each."""

    median_ms: float
    p10: float
    p90: float
    runs: int
    images: int = 1

    @property
    def images_per_second(self) -> float:
        """Images per second at the median."""
        return 1000 * self.images / self.median_ms

    def to_dict(self) -> dict[str, float | int]:
        """Plain data for JSON."""
        return asdict(self) | {"images_per_second": self.images_per_second}


@dataclass(frozen=True)
class Comparison:
    """Latencies of interleaved calls by name.

    Attributes:
        latencies: one entry per name, in the given order.
        ratios: images per second relative to the baseline, as the median over rounds (above 1: faster). Background load
            affects both times of a round, so their ratio varies less than either time.
        samples: milliseconds of every call.
    """

    latencies: dict[str, Latency]
    ratios: dict[str, float]
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def compare(
    calls: Mapping[str, Callable[[], Any]],
    *,
    runs: int = 50,
    warmup: int = 5,
    threads: int = 0,
    images: Mapping[str, int] | None = None,
    baselines: Mapping[str, str] | None = None,
    done: Callable[[int], None] = lambda calls: None,
) -> Comparison:
    """Times several calls in interleaved rounds (a, b, a, b, ...), so that background load affects all equally.

    Every other round is reversed, so that no call always follows the same one.

    Args:
        calls: name -> function that does the work once and returns when it is complete.
        runs: number of rounds.
        warmup: rounds before the timed ones.
        threads: PyTorch threads; 0 uses the CPUs granted (`machine.cpu_threads`). Exported files have their own number
            of threads.
        images: batch size of each call by name; None means one image for all.
        baselines: the baseline of each name; None uses the first name for all.
        done: called between rounds with the number of calls in a round.

    Raises:
        UserError: there are no calls, `runs` is not positive, or `warmup` or `threads` is negative.
    """
    if not calls or runs < 1 or warmup < 0:
        raise UserError(f"Latency needs at least one call, at least 1 run (not {runs}) and a warmup of 0 or more.")
    names = list(calls)
    counts = {name: 1 if images is None else images[name] for name in names}
    seconds = np.zeros((runs, len(names)))
    with _threads(threads), _no_garbage_collection():
        for _ in range(warmup):
            for name in names:
                calls[name]()
            done(len(names))
        for run in range(runs):
            for column in range(len(names)) if run % 2 == 0 else reversed(range(len(names))):
                start = time.perf_counter()
                calls[names[column]]()
                seconds[run, column] = time.perf_counter() - start
            done(len(names))
    each = seconds / np.array([counts[name] for name in names])
    against = [names.index(baselines[name]) if baselines is not None else 0 for name in names]
    ratios = np.median(each[:, against] / each, axis=0)
    return Comparison(
        {name: _summarise(1000 * seconds[:, column], counts[name]) for column, name in enumerate(names)},
        {name: float(ratios[column]) for column, name in enumerate(names)},
        {name: tuple((1000 * seconds[:, column]).tolist()) for column, name in enumerate(names)},
    )


def predictor_call(predictor: Predictor, images: Tensor) -> Callable[[], None]:
    """A function that runs a predictor on images (float32 [B, C, H, W] in 0..1), as a prediction does, and waits for
    the result.
    """
    images = images.to(predictor.device)

    def call() -> None:
        predictor.infer(images, PREDICTION.conf)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    return call


def random_images(size: int | tuple[int, int], batch: int = 1, channels: int = 3) -> Tensor:
    """Noise float32 [B, C, H, W] in 0..1, always the same."""
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


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
