"""Prepares networks for timing: checkpoints on every requested runtime and exported files, all at one image size."""

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
    """Settings of a benchmark.

    Attributes:
        runtimes: runtimes of the checkpoints: "torch", or export formats; empty uses `default_runtime()`.
        image_size: px, one side or height and width; 0 uses the size that the files require or store.
        batches: batch sizes, with one comparison each.
        rounds: measurements per network.
        threads: CPU threads.
        device: device to run on.
        precision: precision of checkpoints in PyTorch.
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
    """A file of the command: a checkpoint, or an opened exported file."""

    name: str
    checkpoint: Checkpoint | None = None
    predictor: Predictor | None = None


@dataclass(frozen=True)
class TimedNetwork:
    """One detector on one runtime, ready to be timed.

    Attributes:
        name: file as given by the user.
        runtime: display name of the runtime.
        file: file that the runtime opened: a temporary export, or the given file.
        call: runs it once.
        shape: shape of the images of a call, [B, C, H, W].
        checkpoint: None for an exported file.
        work: its layers by name; empty if unknown.
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
        """Its name among the networks that are timed together."""
        return f"{self.name} ({self.runtime})"

    @property
    def images(self) -> int:
        """Batch size."""
        return self.shape[0]

    @property
    def flops(self) -> int | None:
        """FLOPs per image; None if unknown."""
        return sum(work.flops for work in self.work.values()) or None


def runnable_formats() -> list[str]:
    """Export formats that have a runtime."""
    return [name for name, exporter in EXPORTERS.items() if is_exported(f"detector{exporter.suffix}")]


def default_runtime() -> str:
    """ONNX Runtime if installed, otherwise PyTorch."""
    return "onnx" if not EXPORTERS["onnx"].missing() else TORCH


def check_runtimes(runtimes: Sequence[str]) -> tuple[str, ...]:
    """The requested runtimes without duplicates.

    Raises:
        UserError: a runtime is unknown or not installed.
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
        UserError: no file is given, a file is missing or invalid, has no runtime, or cannot run on the device.
    """
    if not files:
        raise UserError(
            "secateur bench needs at least one file: secateur bench dense.pt cut.safetensors detector.onnx."
        )
    found = []
    for name in dict.fromkeys(files):
        if runtime_of(name).exported:
            found.append(BenchFile(name, predictor=_opened(Path(name), settings)))
        else:
            found.append(BenchFile(name, load_checkpoint(name)))
    return found


def common_size(entries: Sequence[BenchFile], image_size: ImageSize) -> Sides:
    """Height and width of the images: as requested, otherwise as required by exported files, otherwise the largest size
    stored in a checkpoint.

    Raises:
        UserError: an exported file requires another size than requested, or than another file requires.
    """
    fixed = {entry.name: sides for entry in entries if entry.predictor and (sides := _fixed(entry.predictor))}
    checkpoints = [entry.checkpoint for entry in entries if entry.checkpoint]
    wanted = [sides_of(usable_size(checkpoint, image_size)) for checkpoint in checkpoints]
    if image_size and not wanted:
        strides = [int(max(entry.predictor.strides, default=1)) for entry in entries if entry.predictor]
        wanted = [sides_of(check_image_size(image_size, max(strides)))]
    # Requested sizes differ only because of the strides, and stored sizes are squares.
    largest = max(wanted, default=(DEFAULT_SIZE, DEFAULT_SIZE))
    for name, sides in fixed.items():
        if image_size and sides != largest:
            raise UserError(
                f"{name} requires images of {in_words(sides)} px, not {in_words(largest)}. Remove --img, or "
                "export it for that size."
            )
        first = next(iter(fixed))
        if sides != fixed[first]:
            raise UserError(
                f"{first} requires images of {in_words(fixed[first])} px and {name} of {in_words(sides)} px, "
                "so their times are not comparable. Export both for one size."
            )
    return next(iter(fixed.values()), largest)


def timed_networks(
    entries: Sequence[BenchFile], settings: BenchSettings, sides: Sides, batch: int, folder: Path
) -> list[TimedNetwork]:
    """Opens everything that is timed together: every checkpoint on every runtime, and every exported file in its own.

    Files with a fixed batch size are timed at that size.

    Args:
        entries: the files.
        settings: settings of the benchmark.
        sides: height and width of the images.
        batch: batch size.
        folder: folder for temporary exports.

    Raises:
        UserError: an export fails, or a runtime lacks the device.
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
    """Opens a file on the requested device.

    Raises:
        UserError: its runtime lacks the device on this machine.
    """
    predictor = open_predictor(file, settings.device, settings.threads)
    if predictor.device.type != settings.device.type:
        raise UserError(
            f"{runtime_of(file).title} does not support {settings.device.type} here. Use --device cpu, or "
            "--runtime torch for checkpoints."
        )
    return predictor


def _fixed(predictor: Predictor) -> Sides | None:
    return None if predictor.image_size is None else sides_of(predictor.image_size)
