"""Writes networks as files for other runtimes. Each is an `Exporter` of a module in `formats/`."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.deploy.check import checked
from secateur.deploy.runtimes import RUNTIMES
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Judge, Source
from secateur.errors import UserError
from secateur.evaluation.validate import check_image_size
from secateur.files import atomic_folder, atomic_write
from secateur.networks.architecture import channels_of, strides_of
from secateur.pruning.graph import Stored
from secateur.registry import Registry
from secateur.terminal import silenced, without_telemetry


@dataclass(frozen=True)
class Exported:
    """An exported file, or folder of files.

    Attributes:
        path: the file.
        max_error: largest difference between the runtime and the network, see `check.checked`.
        size: height and width of the input in pixels.
        batch: images of the input; 0 when any number is accepted.
        file_mb: its size in megabytes (10^6 bytes).
        precision: "fp32", "fp16" or "int8".
        details: what else is to be said of this format, such as ONNX' opset.
        notes: sentences for the user.
    """

    path: Path
    max_error: float
    size: tuple[int, int]
    batch: int
    file_mb: float
    precision: str = "fp32"
    details: Mapping[str, int | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the file by its name."""
        return {
            "file": self.path.name,
            "max_error": self.max_error,
            "size": list(self.size),
            "batch": self.batch,
            "precision": self.precision,
            **self.details,
            "file_mb": self.file_mb,
        }


@dataclass(frozen=True)
class Written:
    """What a writer says of its file: details for tables, sentences for the user (`{file}` stands for its name)."""

    details: Mapping[str, int | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exporter:
    """One format.

    Attributes:
        title: its name in sentences, "ONNX".
        suffix: what its names end in, and the name of the runtime in `RUNTIMES` that opens them: ".onnx".
        packages: what must be installed.
        extra: the extra of this package that brings them.
        write: writes the file, or into the empty folder, of that name; nothing is checked yet.
        folder: it is a folder of files.
        precisions, outputs: those that it can be written with, see `ExportSettings`.
        dynamic: the number of images can be left open.
        stored: by precision, the bytes that it takes for the tensors of a network; none where files of it are not
            sized before they are written.
        check: raises UserError for what else of the settings it cannot write.
    """

    title: str
    suffix: str
    packages: tuple[str, ...]
    extra: str
    write: Callable[[Source, Path, ExportSettings], Written]
    folder: bool = False
    precisions: tuple[str, ...] = ("fp32",)
    outputs: tuple[str, ...] = ("decoded",)
    dynamic: bool = False
    stored: Mapping[str, Stored] = field(default_factory=dict)
    check: Callable[[ExportSettings], None] | None = None

    def missing(self) -> str:
        """The first of the packages that cannot be imported; "" when all are there."""
        for package in self.packages:
            try:
                with silenced(), without_telemetry():  # some greet with log lines
                    importlib.import_module(package)
            except ImportError:
                return package
        return ""


EXPORTERS: Registry[Exporter] = Registry("export format", "secateur.deploy.formats", __name__)


def check_export(settings: ExportSettings) -> Exporter:
    """What writes the one format that the settings name.

    Raises:
        UserError: an unknown format, a package of it is not installed, or it cannot be written as the settings say.
    """
    exporter = EXPORTERS[settings.format]
    if package := exporter.missing():
        raise UserError(
            f"{exporter.title} export needs the package {package}: pip install 'secateur[{exporter.extra}]'."
        )
    for name, value, known in (
        ("precision", settings.precision, exporter.precisions),
        ("output", settings.output, exporter.outputs),
    ):
        if value not in known:
            raise UserError(f"{exporter.title} files have no {name} {value}; choose {' or '.join(known)}.")
    if settings.dynamic and not exporter.dynamic:
        raise UserError(f"{exporter.title} files take a fixed number of images: leave --dynamic out.")
    if settings.any_size and settings.format != "onnx":
        raise UserError(f"{exporter.title} files take images of one size: leave --any-size out.")
    if settings.accuracy_drop and (settings.precision != "int8" or settings.format != "openvino"):
        raise UserError("--accuracy-drop is for int8 in OpenVINO (--format openvino --int8): leave it out.")
    if exporter.check is not None:
        exporter.check(settings)
    return exporter


def export(
    network: nn.Module,
    path: str | Path,
    image_size: int | tuple[int, int],
    settings: ExportSettings | None = None,
    *,
    about: Mapping[str, str] | None = None,
    images: Sequence[Tensor] = (),
    judge: Judge | None = None,
) -> Exported:
    """Writes a network as a file for another runtime; the file appears only when it gives the network's outputs.

    Args:
        network: any device, training or not; it is left as it is.
        path: the file, or folder, to write.
        image_size: side, or height and width, of the input in pixels; rounded up to multiples of the largest stride.
        settings: format and its options; None takes the defaults.
        about: what else the file says of itself: lineage, licence.
        images: uint8 [C, H, W] of the image size, on which int8 is calibrated.
        judge: metric of a predictor of that size, for `accuracy_drop`.

    Raises:
        UserError: unknown format, a package is not installed, the export or its check fails, or the file cannot be
            written.
    """
    settings, path = settings or ExportSettings(), Path(path)
    exporter = check_export(settings)
    if settings.accuracy_drop and judge is None:
        raise UserError("--accuracy-drop needs --data with a val split to measure on.")
    if settings.precision == "int8" and not images:
        raise UserError("int8 is calibrated on images of yours: give some with --data or --images.")
    size = _whole_strides(network, image_size)
    source = Source.of(network, size, about, images, judge)
    with atomic_folder(path) if exporter.folder else atomic_write(path) as temporary:
        written = exporter.write(source, temporary, settings)
        with _twin(exporter, source, temporary, settings) as twin:
            error = checked(source, RUNTIMES[exporter.suffix], temporary, path, settings, twin)
        megabytes = _bytes(temporary) / 1e6
    batch = 0 if settings.dynamic else settings.batch_size
    notes = tuple(note.replace("{file}", str(path)) for note in written.notes)
    return Exported(path, error, size, batch, megabytes, settings.precision, written.details, notes)


def bytes_written(
    network: nn.Module, image_size: int | tuple[int, int], settings: ExportSettings, about: Mapping[str, str]
) -> int:
    """Bytes of the file, or of all files of the folder, that `export` would leave; nothing is checked or kept.

    int8 is calibrated on noise, for the ranges of activations do not change the size.

    Raises:
        UserError: the network cannot be expressed.
    """
    exporter, size = check_export(settings), _whole_strides(network, image_size)
    random = torch.Generator().manual_seed(0)
    noise = [
        torch.randint(0, 256, (channels_of(network), *size), generator=random, dtype=torch.uint8) for _ in range(2)
    ]
    source = Source.of(network, size, about, noise)
    with tempfile.TemporaryDirectory() as folder:
        # Under the name that the file of a pruned network usually has: some formats repeat it at every tensor.
        file = Path(folder) / f"pruned{exporter.suffix}"
        with atomic_folder(file) if exporter.folder else atomic_write(file) as temporary:
            exporter.write(source, temporary, settings)
        return _bytes(file)


def _whole_strides(network: nn.Module, image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels, rounded up to multiples of the largest stride."""
    stride = int(max(strides_of(network), default=1))
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return check_image_size(height, stride), check_image_size(width, stride)


@contextmanager
def _twin(exporter: Exporter, source: Source, file: Path, settings: ExportSettings) -> Iterator[Path]:
    """The same file with other outputs, where those are compared in its place (`Outputs.judged_as`); or the file."""
    kind = source.outputs(settings).judged_as
    if not kind:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / f"twin{exporter.suffix}"
        if exporter.folder:
            twin.mkdir()
        exporter.write(source, twin, replace(settings, output=kind))
        yield twin


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files)
