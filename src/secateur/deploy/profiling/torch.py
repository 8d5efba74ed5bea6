"""PyTorch: hooks around every module of the network tell its own time, without that of the modules inside it."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from secateur.deploy.profiling import PROFILERS, LayerTime, Profiler, Sides
from secateur.deploy.timing import low, repeat
from secateur.evaluation.cost import LayerWork, layer_work, work_of
from secateur.evaluation.settings import PREDICTION
from secateur.families.family import predictor_of
from secateur.families.loading import load_checkpoint

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_OUTSIDE, _BETWEEN = ("(outputs)", "decode"), ("(between the layers)", "call")


class Hooked:
    """A checkpoint as it predicts, timed module by module."""

    def __init__(self, file: Path, shape: tuple[int, ...], threads: int) -> None:
        self._predictor = predictor_of(load_checkpoint(file))
        self._images, self._threads = torch.full(shape, 0.5), threads
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._work: dict[str, LayerWork] = {}

    def turn(self) -> None:
        """A few more runs; the first two are not counted."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        runs: list[_Run] = []
        try:
            repeat(lambda: runs.append(self._run()), least=5, most=20, seconds=0.1)
        finally:
            torch.set_num_threads(before)
        for run in runs[2:]:
            self._work |= run.work
            for place, ms in run.own.items():
                self._times[place].append(ms)

    def layers(self) -> list[LayerTime]:
        """See `Profiling`; modules that contain others have their own time, of sums and concats."""
        return [LayerTime(name, kind, low(times), self._work.get(name)) for (name, kind), times in self._times.items()]

    def milliseconds(self) -> list[float]:
        """Time of a call."""
        return [sum(layer.ms for layer in self.layers())]

    def _run(self) -> _Run:
        run = _Run(len(self._images))
        hooks = [register_module_forward_pre_hook(run.enter), register_module_forward_hook(run.leave)]
        start = time.perf_counter()
        try:
            self._predictor.infer(self._images, PREDICTION.conf)
        finally:
            for hook in hooks:
                hook.remove()
        run.own[_OUTSIDE] += 1000 * (time.perf_counter() - start - run.inside - run.lost)
        return run


class _Run:
    """The times of one call.

    Attributes:
        images: how many the call computes.
        own: milliseconds of each module, by name and kind.
        work: of the convolutions and linear layers, by name.
        inside: seconds inside the network.
        lost: seconds in the hooks themselves.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.own: dict[tuple[str, str], float] = defaultdict(float)
        self.work: dict[str, LayerWork] = {}
        self.inside = self.lost = 0.0
        self._names: dict[nn.Module, str] = {}
        self._open: list[_Frame] = []
        self._last: tuple[str, str] | None = None

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """Called before every module."""
        came = time.perf_counter()
        if not self._names:  # the first one is the network itself
            self._names = {inner: name for name, inner in module.named_modules()}
        self._open.append(_Frame())
        self.lost += time.perf_counter() - came
        self._open[-1].start, self._open[-1].lost = time.perf_counter(), self.lost

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Called after every module."""
        left = time.perf_counter()
        frame = self._open.pop()
        took = left - frame.start - (self.lost - frame.lost)
        place = self._place(module, inputs, output)
        self.own[place] += 1000 * (took - frame.inner)
        if self._open:
            self._open[-1].inner += took
        else:
            self.inside += took
        self.lost += time.perf_counter() - left

    def _place(self, module: nn.Module, inputs: Any, output: Any) -> tuple[str, str]:
        name = self._names.get(module, "")
        if isinstance(module, _LAYERS) and isinstance(output, Tensor):
            self.work[name] = work_of(module, inputs[0], output, self.images)
            self._last = (name, self.work[name].kind)
            return self._last
        if type(module).__module__ == "torch.nn.modules.activation" and self._last is not None:
            return self._last
        if isinstance(module, nn.Identity | nn.Sequential) or any(isinstance(m, _LAYERS) for m in module.children()):
            return _BETWEEN
        self._last = None
        return (name, type(module).__name__.lower()) if name else _BETWEEN


class _Frame:
    """A module that is being computed: when it began, seconds in hooks till then and in modules inside it."""

    def __init__(self) -> None:
        self.start = self.lost = self.inner = 0.0


def _work_of_file(file: Path, sides: Sides) -> dict[str, LayerWork]:
    return layer_work(load_checkpoint(file).build(), sides)


for suffix in (".safetensors", ".pt"):
    PROFILERS.register(suffix)(Profiler(_work_of_file, Hooked))
