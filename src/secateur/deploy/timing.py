"""Times layers and networks for latency tables. Each runtime is a `Stopwatch` in a module of `formats/`.

Background load only ever slows a run down, and rarely the same layer in every run. Each layer's time is therefore a low
percentile over its runs. The time of a network is the sum over its layers if the runtime provides them.
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
"""The percentile of the runs that is reported: close to the fastest run, without background load."""
MOST_TURNS = 24
"""Maximum number of turns."""
STEADY = 0.01
"""A time has settled when further turns lower it by at most this share."""


class Timing(Protocol):
    """Layers, or one network, being timed. Measurements accumulate over turns."""

    def turn(self) -> None:
        """Runs a few more timed calls."""
        ...

    def milliseconds(self) -> list[float]:
        """Milliseconds of each layer, or of the network, over all turns so far."""
        ...


@dataclass(frozen=True)
class Stopwatch:
    """Timing functions of one runtime.

    Attributes:
        title: display name.
        extra: the extra of this package that installs it; "" if it is always installed.
        version: returns its version; raises ImportError if it is not installed.
        layers: signature, input width, output widths and threads -> a layer for each output width.
        network: a network, the shape [1, C, H, W] of its image, and threads -> the network.
    """

    title: str
    extra: str
    version: Callable[[], str]
    layers: Callable[[Signature, int, Sequence[int], int], Timing]
    network: Callable[[nn.Module, tuple[int, ...], int], Timing]

    @property
    def installed(self) -> bool:
        """Whether it is installed."""
        try:
            self.version()
        except ImportError:
            return False
        return True

    @property
    def name(self) -> str:
        """Name and version, as recorded in latency tables.

        Raises:
            UserError: it is not installed.
        """
        try:
            return f"{self.title} {self.version()}"
        except ImportError:
            raise UserError(
                f"{self.title} is not installed. Run pip install 'secateur[{self.extra}]', or use --runtime torch."
            ) from None


STOPWATCHES: Registry[Stopwatch] = Registry("runtime", "secateur.deploy.formats", __name__)


def low(times: Any) -> float:
    """The low percentile of repeated times."""
    return float(np.percentile(times, LOW))


def repeat(call: Callable[[], Any], *, least: int, most: int, seconds: float) -> None:
    """Calls a function `least` times, then until `seconds` have passed or `most` calls are made."""
    end = time.perf_counter() + seconds
    for number in range(most):
        if number >= least and time.perf_counter() > end:
            return
        call()


def settle(
    timings: Sequence[Timing], patience: int = 2, done: Callable[[int], None] = lambda turns: None
) -> list[list[float]]:
    """Times everything in interleaved turns, so that background load affects all equally, until each time has settled.

    Args:
        timings: what to time.
        patience: number of turns without a lower time after which a time has settled.
        done: called with the number of completed or skipped turns, out of `MOST_TURNS` each.

    Returns:
        milliseconds of each.
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
