"""The machine balance: FLOPs per byte moved, which separates memory-bound from compute-bound layers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from secateur.deploy.timing import low, repeat
from secateur.machine import cpu_threads

_SIDE = 768
"""Side of the multiplied matrices: a few hundred FLOPs per byte, so that memory traffic is negligible."""
_VALUES = 1 << 22
"""Number of copied values: 16 MB, larger than the caches of a core, smaller than many first feature maps of a batch."""


def machine_balance(threads: int = 0, device: torch.device | None = None) -> float:
    """FLOPs that this machine computes in the time of moving one byte, in fp32, from a quick benchmark.

    A layer with fewer FLOPs per byte (`LayerWork.intensity`) is bound by memory: removing FLOPs makes it faster only if
    its bytes decrease too.

    Args:
        threads: CPU threads; 0 uses all CPUs granted to this process.
        device: None uses the CPU.
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
    """Seconds per call, as a low percentile."""
    times: list[float] = []

    def run() -> None:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)

    repeat(run, least=10, most=60, seconds=0.4)
    return low(times[2:])
