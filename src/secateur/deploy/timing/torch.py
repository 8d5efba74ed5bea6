"""PyTorch: layers as calls of its functions, networks as the predictor runs them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.deploy.timing import STOPWATCHES, Stopwatch, low, repeat
from secateur.evaluation.settings import PREDICTION
from secateur.families.family import family_of
from secateur.pruning.latency import Signature

_NAMES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


class Called:
    """Calls that are timed as a whole, in turns."""

    def __init__(self, calls: Sequence[Callable[[], Any]], threads: int) -> None:
        self._calls, self._threads = calls, threads
        self._times: list[list[float]] = [[] for _ in calls]

    def turn(self) -> None:
        """A few more runs of each; the first is not counted."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            for call, known in zip(self._calls, self._times, strict=True):
                times: list[float] = []
                repeat(_timed(call, times), least=4, most=20, seconds=0.15 / len(self._calls))
                known += times[1:]
        finally:
            torch.set_num_threads(before)

    def milliseconds(self) -> list[float]:
        """Time of each call."""
        return [low(times) for times in self._times]


def network(network: nn.Module, shape: tuple[int, ...], threads: int) -> Called:
    """A detector as it predicts, with its norms folded, or another network as it is."""
    images = torch.full(shape, 0.5)
    family = family_of(network)
    if family.knows("predictor"):
        predictor = family.predictor(network)
        return Called([lambda: predictor.infer(images, PREDICTION.conf)], threads)
    network = copy.deepcopy(network).cpu().float().eval()
    return Called([torch.inference_mode()(lambda: network(images))], threads)


def layers(signature: Signature, reads: int, emits: Sequence[int], threads: int) -> Called:
    """Layers of one signature that read the same width; see `Stopwatch`."""
    return Called([torch.inference_mode()(_call(signature, reads, width)) for width in emits], threads)


def _timed(call: Callable[[], Any], times: list[float]) -> Callable[[], None]:
    """The call, which then notes its milliseconds."""

    def run() -> None:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))

    return run


def _call(signature: Signature, reads: int, width: int) -> Callable[[], Tensor]:
    inside, outside = signature.per_group
    groups = width // outside if outside else 1
    reads = inside * groups if outside else reads
    if signature.kind not in ("conv", "transposed"):
        return _other(signature, width)
    x, bias = torch.full((1, reads, *signature.map), 0.5), torch.full((width,), 0.01)
    plain = signature.kind == "conv"
    shape = (width, reads // groups) if plain else (reads, width // groups)
    weight = torch.full((*shape, *signature.kernel), 0.01)
    activation = _NAMES.get(signature.activation) or getattr(functional, signature.activation or "_none", None)

    def convolution() -> Tensor:
        if plain:
            y = functional.conv2d(x, weight, bias, signature.stride, signature.padding, signature.dilation, groups)
        else:
            y = functional.conv_transpose2d(
                x, weight, bias, signature.stride, signature.padding, groups=groups, dilation=signature.dilation
            )
        return y if activation is None else activation(y)

    return convolution


def _other(signature: Signature, width: int) -> Callable[[], Tensor]:
    x = torch.full((1, width, *signature.map), 0.5)
    if signature.kind == "concat":
        half = x[:, : (width + 1) // 2].clone()
        return lambda: torch.cat((half, half), 1)
    if signature.kind == "add":
        return lambda: x + x
    if signature.kind == "pool":
        return lambda: functional.max_pool2d(x, signature.kernel, signature.stride, signature.padding)
    return lambda: functional.interpolate(x, scale_factor=tuple(map(float, signature.stride)), mode="nearest")


STOPWATCHES.register("torch")(Stopwatch("PyTorch", "", lambda: torch.__version__, layers, network))
