"""`--round-to auto`: benchmarks convolutions to find the channel multiple that is efficient on this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from secateur.deploy.speed.latency_table import cache_file, stopwatch_of
from secateur.deploy.timing import MOST_TURNS, Stopwatch, settle
from secateur.errors import UserError
from secateur.files import read_json, write_json
from secateur.machine import cpu_threads, processor
from secateur.pruning.latency import Signature
from secateur.pruning.options import AUTO, GuardSettings, LatencySettings
from secateur.pruning.settings import Guards
from secateur.terminal import timing_bar

logger = logging.getLogger("secateur")

LEAST_LOSS = 0.05
"""Share of its time that a width may lose and still count as efficient."""
WIDTHS = {4: (68, 84, 100), 8: (72, 88, 104), 16: (80, 112), 32: (64, 96, 128)}
"""Timed widths, grouped by the largest of these numbers of which they are multiples."""
_LAYERS = (
    Signature("conv", (20, 20), (3, 3), (1, 1), (1, 1), activation="silu"),
    Signature("conv", (40, 40), activation="silu"),
)
# Typical convolutions of detectors, on feature maps of middle levels.

Losses = dict[int, float]


def decided_guards(settings: GuardSettings, latency: LatencySettings, *, milliseconds: bool = False) -> Guards:
    """The guards with a number instead of `auto`: this machine's, or with a budget in milliseconds the latency table's
    block.

    Raises:
        UserError: see `auto_round_to`.
    """
    number = decided(settings.round_to, latency, milliseconds=milliseconds)
    return Guards(settings.min_share, settings.min_count, number, settings.exclude)


def decided(round_to: int | str, latency: LatencySettings, *, milliseconds: bool = False) -> int:
    """The number for `auto`, see `decided_guards`."""
    if round_to != AUTO:
        return int(round_to)
    return 0 if milliseconds else auto_round_to(latency)


def auto_round_to(settings: LatencySettings) -> int:
    """The efficient channel multiple of this machine, from the cache or measured now. Logs the result.

    Args:
        settings: runtime and threads of the measurement.

    Raises:
        UserError: the runtime is unknown or not installed.
    """
    stopwatch = stopwatch_of(settings.runtime)
    threads = settings.threads or cpu_threads()
    file = cache_file(f"round to {stopwatch.name} {threads} threads", [processor(), stopwatch.name, threads])
    losses = _known(file)
    if losses is None:
        logger.info(
            "Timing channel widths in %s for --round-to auto. This takes half a minute, once per machine.",
            stopwatch.name,
        )
        losses = width_losses(stopwatch, threads)
        try:
            write_json(file, {str(multiple): loss for multiple, loss in losses.items()})
        except UserError as error:
            logger.warning("Cannot cache the measurement: %s", error)
    chosen = best_multiple(losses)
    arithmetic = next((name for name in ("AVX-512", "AVX2", "NEON") if name in processor()), processor())
    told = ", ".join(f"of {multiple} {max(loss, 0):.0%}" for multiple, loss in losses.items())
    logger.info(
        "round-to auto: %d channels (%s, %s); time lost by multiples: %s", chosen, arithmetic, stopwatch.name, told
    )
    return chosen


def width_losses(stopwatch: Stopwatch, threads: int) -> Losses:
    """For each number, how much more time per FLOP its odd multiples take than multiples of the largest number."""
    widths = sorted(width for some in WIDTHS.values() for width in some)
    keys = [(layer, width) for layer in _LAYERS for width in widths]
    timings = [stopwatch.layers(layer, width, (width,), threads) for layer, width in keys]
    with timing_bar("timing widths", MOST_TURNS * len(timings)) as advance:
        times = dict(zip(keys, (ms for (ms,) in settle(timings, done=advance)), strict=True))
    return losses_of([{width: times[layer, width] for width in widths} for layer in _LAYERS])


def losses_of(times: list[dict[int, float]]) -> Losses:
    """The losses from milliseconds of square convolutions by width, one entry per layer.

    Each time is divided by the squared width and compared with the interpolated time of the best multiples.
    """
    best = WIDTHS[max(WIDTHS)]
    found: Losses = {}
    for multiple, widths in WIDTHS.items():
        lost = [
            ms[width] / width**2 / np.interp(width, best, [ms[b] / b**2 for b in best]) - 1
            for ms in times
            for width in widths
        ]
        found[multiple] = float(np.mean(lost))
    return found


def best_multiple(losses: Mapping[int, float]) -> int:
    """The smallest number for which neither its odd multiples nor those of its multiples lose more than `LEAST_LOSS`.

    >>> best_multiple({4: 0.4, 8: 0.03, 16: 0.01, 32: 0.0})
    8
    """
    chosen = max(losses)
    for multiple in sorted(losses, reverse=True):
        if losses[multiple] > LEAST_LOSS:
            break
        chosen = multiple
    return chosen


def _known(file: Path) -> Losses | None:
    """The cached losses, if they are readable."""
    try:
        data: Any = read_json(file) if file.is_file() else {}
        losses = {int(multiple): float(loss) for multiple, loss in data.items()}
    except (UserError, ValueError, TypeError, AttributeError):
        return None
    return losses if list(losses) == list(WIDTHS) else None
