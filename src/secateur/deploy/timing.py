"""Times layers and networks for latency tables. Each runtime is a `Stopwatch` of a module in `formats/`.

The machine may be busy with other things. What else runs only adds time, and rarely to the same layer in every run, so
a layer's time is a low percentile of its runs, and the time of a network is made of those of its layers where the
runtime tells them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from secateur.errors import UserError
from secateur.pruning.latency import Signature
from secateur.registry import Registry

LOW = 5
"""Percentile of the runs that counts as the time of what was run: nearly the fastest, without its other work."""
MOST_TURNS = 24
"""Turns after which a time is taken as it is."""
STEADY = 0.01
"""A time is settled when some more turns have lowered it by no more than this share."""


class Timing(Protocol):
    """Layers, or one network, being timed; what has been seen so far counts together."""

    def turn(self) -> None:
        """A few more timed runs."""
        ...

    def milliseconds(self) -> list[float]:
        """Time of each of the layers, or of the network alone, by all turns so far."""
        ...


@dataclass(frozen=True)
class Stopwatch:
    """How one runtime times.

    Attributes:
        title: its name in sentences.
        extra: the extra of this package that installs it; "" where it is always there.
        version: its version; raises ImportError where it is not installed.
        layers: signature, width that is read, widths that are emitted and threads -> a layer for each of these widths.
        network: detector or other network, shape [1, C, H, W] of its image and threads -> the network.
    """

    title: str
    extra: str
    version: Callable[[], str]
    layers: Callable[[Signature, int, Sequence[int], int], Timing]
    network: Callable[[nn.Module, tuple[int, ...], int], Timing]

    @property
    def installed(self) -> bool:
        """Whether it can be used here."""
        try:
            self.version()
        except ImportError:
            return False
        return True

    @property
    def name(self) -> str:
        """Name and version, as latency tables state it.

        Raises:
            UserError: it is not installed.
        """
        try:
            return f"{self.title} {self.version()}"
        except ImportError:
            raise UserError(
                f"{self.title} is not installed: pip install 'secateur[{self.extra}]', or choose --runtime torch."
            ) from None


STOPWATCHES: Registry[Stopwatch] = Registry("runtime", "secateur.deploy.formats", __name__)


def low(times: Any) -> float:
    """The low percentile of repeated times."""
    return float(np.percentile(times, LOW))


def repeat(call: Callable[[], Any], *, least: int, most: int, seconds: float) -> None:
    """Calls again and again: `least` times, then until so many seconds or `most` calls are over."""
    end = time.perf_counter() + seconds
    for number in range(most):
        if number >= least and time.perf_counter() > end:
            return
        call()


def settle(
    timings: Sequence[Timing], patience: int = 2, done: Callable[[int], None] = lambda turns: None
) -> list[list[float]]:
    """Times all of them in turns, so that a busy machine is busy for all, each until its times no longer fall.

    Args:
        timings: what is timed.
        patience: turns without a lower time after which a time is settled.
        done: called with the number of turns that were taken, or need not be, of `MOST_TURNS` for each.

    Returns:
        The milliseconds of each.
    """
    totals: list[list[float]] = [[] for _ in timings]
    open_ones = list(range(len(timings)))
    for number in range(1, MOST_TURNS + 1):
        for index in open_ones:
            timings[index].turn()
            totals[index].append(sum(timings[index].milliseconds()))
            done(1)
        steady = [i for i in open_ones if number > patience and totals[i][-1] > (1 - STEADY) * totals[i][-1 - patience]]
        done(len(steady) * (MOST_TURNS - number))
        open_ones = [index for index in open_ones if index not in steady]
    return [timing.milliseconds() for timing in timings]
