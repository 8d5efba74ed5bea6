"""How much arithmetic this machine does while it moves a byte: what parts layers bound by memory from the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from secateur.deploy.timing import low, repeat
from secateur.machine import cpu_threads

_SIDE = 768
"""Of the matrices whose product is timed: a few hundred FLOPs a byte, so that memory does not count."""
_VALUES = 1 << 22
"""Values that are copied: 16 MB, more than the caches of a core hold, less than many a first map of a batch."""


def machine_balance(threads: int = 0, device: torch.device | None = None) -> float:
    """FLOPs that this machine computes in the time in which it moves one byte, in fp32, by a quick measurement.

    A layer of fewer FLOPs a byte (`LayerWork.intensity`) waits for its maps and weights: fewer FLOPs make it faster
    only as far as they come with fewer bytes.

    Args:
        threads: on the CPU; 0 takes those that this process was granted.
        device: None is the CPU.
    """
    place = device or torch.device("cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or cpu_threads())
    try:
        with torch.inference_mode():
            square, source = torch.full((_SIDE, _SIDE), 0.5, device=place), torch.full((_VALUES,), 0.5, device=place)
            target = torch.empty_like(source)
            flops = 2 * _SIDE**3 / _fastest(lambda: square @ square, place)
            moved = 2 * source.numel() * source.element_size() / _fastest(lambda: target.copy_(source), place)
    finally:
        torch.set_num_threads(before)
    return flops / moved


def _fastest(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call, in a low percentile."""
    times: list[float] = []

    def run() -> None:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)

    repeat(run, least=10, most=60, seconds=0.4)
    return low(times[2:])
