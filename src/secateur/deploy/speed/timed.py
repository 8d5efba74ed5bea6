"""What is timed: checkpoints on every runtime that is asked for, exported files on their own, all at one image size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.deploy.exporters import EXPORTERS, check_export, export
from secateur.deploy.predictor import FilePredictor
from secateur.deploy.profiling import profiler_of
from secateur.deploy.runtimes import is_exported, open_predictor, runtime_of
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.cost import LayerWork, layer_work
from secateur.evaluation.latency import predictor_call, random_images
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.validate import check_image_size
from secateur.families.evaluation import DEFAULT_SIZE, usable_size
from secateur.families.family import predictor_of
from secateur.families.loading import load_checkpoint
from secateur.networks.architecture import channels_of
from secateur.networks.checkpoint import Checkpoint
from secateur.sizes import ImageSize, Sides, in_words, sides_of

TORCH = "torch"


@dataclass(frozen=True)
class BenchSettings:
    """How a comparison is measured.

    Attributes:
        runtimes: of the checkpoints: "torch", or formats of exports; none takes `default_runtime()`.
        image_size: px, one side or height and width; 0 takes what the files take or remember.
        batches: images of a call, one comparison each.
        rounds: measurements of each.
        threads: on the CPU.
        device: where it runs.
        precision: of checkpoints in PyTorch.
    """

    runtimes: tuple[str, ...] = ()
    image_size: ImageSize = 0
    batches: tuple[int, ...] = (1,)
    rounds: int = 30
    threads: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    precision: str = "fp32"


@dataclass(frozen=True)
class BenchFile:
    """A file that was named: a checkpoint, or an exported file that is open already."""

    name: str
    checkpoint: Checkpoint | None = None
    predictor: Predictor | None = None


@dataclass(frozen=True)
class TimedNetwork:
    """One detector on one runtime, ready to be timed.

    Attributes:
        name: the file as the user wrote it.
        runtime: what runs it, in words.
        file: what the runtime opened; a temporary export, or what was named.
        call: runs it once.
        shape: of the images of a call, [B, C, H, W].
        checkpoint: None of an exported file.
        work: its layers by name; empty where nobody can tell.
    """

    name: str
    runtime: str
    file: Path
    call: Callable[[], Any]
    shape: tuple[int, ...]
    checkpoint: Checkpoint | None
    work: Mapping[str, LayerWork]

    @property
    def key(self) -> str:
        """Its name among those that are timed together."""
        return f"{self.name} ({self.runtime})"

    @property
    def images(self) -> int:
        """Images of a call."""
        return self.shape[0]

    @property
    def flops(self) -> int | None:
        """FLOPs of one image; None where nobody can tell."""
        return sum(work.flops for work in self.work.values()) or None


def runnable_formats() -> list[str]:
    """Formats of exports whose files something here runs."""
    return [name for name, exporter in EXPORTERS.items() if is_exported(f"detector{exporter.suffix}")]


def default_runtime() -> str:
    """ONNX Runtime where it is installed, else PyTorch."""
    return "onnx" if not EXPORTERS["onnx"].missing() else TORCH


def check_runtimes(runtimes: Sequence[str]) -> tuple[str, ...]:
    """The runtimes that were asked for, each once.

    Raises:
        UserError: one is unknown, or not installed.
    """
    for name in runtimes:
        if name != TORCH and name not in (known := runnable_formats()):
            raise UserError(f"--runtime {name} is unknown; choose among {', '.join([*known, TORCH])}.")
        if name != TORCH:
            check_export(ExportSettings(format=name))
    return tuple(dict.fromkeys(runtimes)) or (default_runtime(),)


def bench_files(files: Sequence[str], settings: BenchSettings) -> list[BenchFile]:
    """Reads checkpoints and opens exported files, each once.

    Raises:
        UserError: none is named, one is missing or broken, nothing runs it, or it cannot run on the device.
    """
    if not files:
        raise UserError("secateur bench needs files: secateur bench dense.pt cut.safetensors detector.onnx.")
    found = []
    for name in dict.fromkeys(files):
        if runtime_of(name).exported:
            found.append(BenchFile(name, predictor=_opened(Path(name), settings)))
        else:
            found.append(BenchFile(name, load_checkpoint(name)))
    return found


def common_size(entries: Sequence[BenchFile], image_size: ImageSize) -> Sides:
    """Height and width of the images: those that were asked for, else the ones that exported files take, else the
    largest that the checkpoints remember.

    Raises:
        UserError: an exported file takes other images than were asked for, or than another one takes.
    """
    fixed = {entry.name: sides for entry in entries if entry.predictor and (sides := _fixed(entry.predictor))}
    checkpoints = [entry.checkpoint for entry in entries if entry.checkpoint]
    wanted = [sides_of(usable_size(checkpoint, image_size)) for checkpoint in checkpoints]
    if image_size and not wanted:
        strides = [int(max(entry.predictor.strides, default=1)) for entry in entries if entry.predictor]
        wanted = [sides_of(check_image_size(image_size, max(strides)))]
    # Sizes that are asked for differ by the strides alone, and remembered ones are squares.
    largest = max(wanted, default=(DEFAULT_SIZE, DEFAULT_SIZE))
    for name, sides in fixed.items():
        if image_size and sides != largest:
            raise UserError(
                f"{name} takes images of {in_words(sides)} px only, not {in_words(largest)}: leave --img out, or "
                "export it for that size."
            )
        first = next(iter(fixed))
        if sides != fixed[first]:
            raise UserError(
                f"{first} takes images of {in_words(fixed[first])} px only and {name} of {in_words(sides)} px, and "
                "times at two sizes compare nothing: export both for one."
            )
    return next(iter(fixed.values()), largest)


def timed_networks(
    entries: Sequence[BenchFile], settings: BenchSettings, sides: Sides, batch: int, folder: Path
) -> list[TimedNetwork]:
    """Opens all that is timed together: every checkpoint on every runtime, every exported file on its own.

    A file that takes one number of images only is timed with that many.

    Args:
        folder: takes temporary exports.

    Raises:
        UserError: an export fails, or a runtime does not have the device.
    """
    found = []
    for number, entry in enumerate(entries):
        if entry.predictor is not None:
            found.append(_exported(entry, entry.predictor, sides, batch))
            continue
        assert entry.checkpoint is not None
        work = layer_work(entry.checkpoint.build(), sides)
        for name in settings.runtimes:
            found.append(_made(entry.name, entry.checkpoint, name, settings, sides, batch, folder / str(number), work))
    return found


def _made(
    title: str,
    checkpoint: Checkpoint,
    runtime: str,
    settings: BenchSettings,
    sides: Sides,
    batch: int,
    folder: Path,
    work: Mapping[str, LayerWork],
) -> TimedNetwork:
    """A checkpoint on one runtime."""
    images = random_images(sides, batch, channels_of(checkpoint.build()))
    if runtime == TORCH:
        predictor: Predictor = predictor_of(checkpoint, settings.device, settings.precision)
        call = predictor_call(predictor, images)
        return TimedNetwork(title, runtime_of(title).title, Path(title), call, tuple(images.shape), checkpoint, work)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{runtime}-{batch}{EXPORTERS[runtime].suffix}"
    export(checkpoint.build(), file, sides, ExportSettings(format=runtime, batch_size=batch))
    call = predictor_call(_opened(file, settings), images)
    return TimedNetwork(title, runtime_of(file).title, file, call, tuple(images.shape), checkpoint, work)


def _exported(entry: BenchFile, predictor: Predictor, sides: Sides, batch: int) -> TimedNetwork:
    file = Path(entry.name)
    own = predictor.batch if isinstance(predictor, FilePredictor) else None
    profiler = profiler_of(file)
    work = {} if profiler is None else profiler.work(file, sides)
    images = random_images(sides, own or batch, predictor.channels)
    call = predictor_call(predictor, images)
    return TimedNetwork(entry.name, runtime_of(file).title, file, call, tuple(images.shape), None, work)


def _opened(file: Path, settings: BenchSettings) -> Predictor:
    """A file on the device that was asked for, not on another one.

    Raises:
        UserError: its runtime has no such device here.
    """
    predictor = open_predictor(file, settings.device, settings.threads)
    if predictor.device.type != settings.device.type:
        raise UserError(
            f"{runtime_of(file).title} has no {settings.device.type} here: take --device cpu, or --runtime torch for "
            "checkpoints."
        )
    return predictor


def _fixed(predictor: Predictor) -> Sides | None:
    return None if predictor.image_size is None else sides_of(predictor.image_size)
