"""PyTorch: opens checkpoints, times them as a whole or per module, and writes the `.pt` files of families."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.profiling import PROFILERS, LayerTime, Profiler, Sides
from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.deploy.timing import STOPWATCHES, Stopwatch, low, repeat
from secateur.errors import UserError
from secateur.evaluation.cost import LayerWork, layer_work, work_of
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import PREDICTION
from secateur.families.family import family_of, predictor_of
from secateur.families.loading import load_checkpoint
from secateur.layers import hooked
from secateur.machine import use_threads
from secateur.pruning.graph import Stored
from secateur.pruning.latency import Signature

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_OUTSIDE, _BETWEEN = ("(outputs)", "decode"), ("(between the layers)", "call")
# Norms are not folded: two parameters and two statistics per channel.
_STORED = {"fp32": Stored(4, 16, 4)}
_NAMES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


class ModuleTimes:
    """A checkpoint in prediction mode, timed module by module."""

    def __init__(self, file: Path, shape: tuple[int, ...], threads: int) -> None:
        self._predictor = predictor_of(load_checkpoint(file))
        self._images, self._threads = torch.full(shape, 0.5), threads
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._work: dict[str, LayerWork] = {}

    def turn(self) -> None:
        """Runs a few more calls; the first two are warm-up."""
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
        """See `Profiling`. Modules with submodules have a time of their own, for sums and concats."""
        return [LayerTime(name, kind, low(times), self._work.get(name)) for (name, kind), times in self._times.items()]

    def milliseconds(self) -> list[float]:
        """Milliseconds per call."""
        return [sum(layer.ms for layer in self.layers())]

    def _run(self) -> _Run:
        run = _Run(len(self._images))
        with hooked((register_module_forward_pre_hook(run.enter), register_module_forward_hook(run.leave))):
            start = time.perf_counter()
            self._predictor.infer(self._images, PREDICTION.conf)
            took = time.perf_counter() - start
        run.own[_OUTSIDE] += 1000 * (took - run.inside - run.lost)
        return run


class _Run:
    """The times of one call.

    Attributes:
        images: batch size of the call.
        own: milliseconds of each module, by name and kind.
        work: work of the convolutions and linear layers, by name.
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
        """Forward pre-hook of every module."""
        came = time.perf_counter()
        if not self._names:  # the first module is the network itself
            self._names = {inner: name for name, inner in module.named_modules()}
        self._open.append(_Frame())
        self.lost += time.perf_counter() - came
        self._open[-1].start, self._open[-1].lost = time.perf_counter(), self.lost

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook of every module."""
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
    """A module being computed: its start time, seconds in hooks until then, and seconds in its submodules."""

    def __init__(self) -> None:
        self.start = self.lost = self.inner = 0.0


def _work_of_file(file: Path, sides: Sides) -> dict[str, LayerWork]:
    return layer_work(load_checkpoint(file).build(), sides)


class Called:
    """Calls that are timed as a whole, in interleaved turns."""

    def __init__(self, calls: Sequence[Callable[[], Any]], threads: int) -> None:
        self._calls, self._threads = calls, threads
        self._times: list[list[float]] = [[] for _ in calls]

    def turn(self) -> None:
        """Runs a few more of each; the first is warm-up."""
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
        """Milliseconds per call."""
        return [low(times) for times in self._times]


def network(network: nn.Module, shape: tuple[int, ...], threads: int) -> Called:
    """A detector in prediction mode with its norms folded, or another network unchanged."""
    images = torch.full(shape, 0.5)
    family = family_of(network)
    if family.knows("predictor"):
        predictor = family.predictor(network)
        return Called([lambda: predictor.infer(images, PREDICTION.conf)], threads)
    network = copy.deepcopy(network).cpu().float().eval()
    return Called([torch.inference_mode()(lambda: network(images))], threads)


def layers(signature: Signature, reads: int, emits: Sequence[int], threads: int) -> Called:
    """Layers of one signature with the same input width; see `Stopwatch`."""
    return Called([torch.inference_mode()(_call(signature, reads, width)) for width in emits], threads)


def _timed(call: Callable[[], Any], times: list[float]) -> Callable[[], None]:
    """Wraps a call so that its milliseconds are recorded."""

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


def open_checkpoint(path: Path, device: torch.device, threads: int = 0, precision: str = "fp32") -> Predictor:
    """Opens a checkpoint as a predictor. PyTorch's number of threads applies to the whole program."""
    if device.type == "cpu":
        use_threads(threads)
    predictor: Predictor = predictor_of(load_checkpoint(path), device, precision)
    return predictor


def own_format(title: str, kind: str, packages: tuple[str, ...] = ()) -> Exporter:
    """The exporter of a family's `.pt` for its original program, which our reader opens as a checkpoint."""

    def write(source: Source, path: Path, settings: ExportSettings) -> Written:
        if source.family.kind != kind:
            raise UserError(
                f"A checkpoint of {title} needs a network of the family '{kind}', not '{source.family.kind}'. "
                "Choose another --format."
            )
        note = source.family.write(source.whole, path, max(source.size))
        return Written(notes=(note,) if note else ())

    return Exporter(title, ".pt", packages, kind if packages else "", write, dynamic=True, stored=_STORED)


EXPORTERS.register("yolov5")(own_format("YOLOv5", "yolov5"))
EXPORTERS.register("ultralytics")(own_format("Ultralytics", "ultralytics", ("ultralytics",)))
STOPWATCHES.register("torch")(Stopwatch("PyTorch", "", lambda: torch.__version__, layers, network))
for suffix in (".safetensors", ".pt"):
    RUNTIMES.register(suffix)(Runtime("PyTorch", open_checkpoint, exported=False))
    PROFILERS.register(suffix)(Profiler(_work_of_file, ModuleTimes))
