"""Exports networks to files for other runtimes. Each format is an `Exporter` in a module of `formats/`."""

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
        path: path of the file.
        max_error: largest difference between the runtime and the network, see `check.checked`.
        size: height and width of the input in pixels.
        batch: batch size; 0 if it is dynamic.
        file_mb: size in megabytes (10^6 bytes).
        precision: "fp32", "fp16" or "int8".
        details: further values specific to the format, such as the ONNX opset.
        notes: messages for the user.
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
        """Plain data for JSON; the path is reduced to its name."""
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
    """The result of a writer: details for tables, and messages for the user (`{file}` is replaced by the file name)."""

    details: Mapping[str, int | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exporter:
    """One export format.

    Attributes:
        title: display name, "ONNX".
        suffix: ending of file names, and key of the runtime in `RUNTIMES` that opens them: ".onnx".
        packages: required packages.
        extra: the extra of this package that installs them.
        write: writes the file, or the content of an empty folder, without checking it.
        folder: whether the format is a folder of files.
        precisions, outputs: supported values, see `ExportSettings`.
        dynamic: whether the batch size can be dynamic.
        stored: by precision, the bytes per tensor of a network; empty if the file size cannot be predicted.
        check: raises UserError for other settings that the format does not support.
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
        """The first required package that cannot be imported; "" if all are installed."""
        for package in self.packages:
            try:
                with silenced(), without_telemetry():  # some packages log a greeting
                    importlib.import_module(package)
            except ImportError:
                return package
        return ""


EXPORTERS: Registry[Exporter] = Registry("export format", "secateur.deploy.formats", __name__)


def check_export(settings: ExportSettings) -> Exporter:
    """The exporter for the format in the settings.

    Raises:
        UserError: the format is unknown, a required package is not installed, or a setting is not supported.
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
            raise UserError(f"{exporter.title} does not support {name} {value}. Choose {' or '.join(known)}.")
    if settings.dynamic and not exporter.dynamic:
        raise UserError(f"{exporter.title} does not support a dynamic batch size. Remove --dynamic.")
    if settings.any_size and settings.format != "onnx":
        raise UserError(f"{exporter.title} does not support dynamic image sizes. Remove --any-size.")
    if settings.accuracy_drop and (settings.precision != "int8" or settings.format != "openvino"):
        raise UserError("--accuracy-drop applies only to OpenVINO int8 (--format openvino --int8). Remove it.")
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
    """Exports a network. The file appears only if its outputs match those of the network.

    Args:
        network: on any device, in any mode; it is not changed.
        path: file or folder to write.
        image_size: side, or height and width, of the input in pixels; rounded up to a multiple of the largest stride.
        settings: format and its options; None uses the defaults.
        about: additional metadata: lineage, licence.
        images: uint8 [C, H, W] of the image size, for int8 calibration.
        judge: returns the metric of a predictor of that size, for `accuracy_drop`.

    Raises:
        UserError: the format is unknown, a package is not installed, the export or its check fails, or the file cannot
            be written.
    """
    settings, path = settings or ExportSettings(), Path(path)
    exporter = check_export(settings)
    if settings.accuracy_drop and judge is None:
        raise UserError("--accuracy-drop measures accuracy. Give --data with a val split.")
    if settings.precision == "int8" and not images:
        raise UserError("int8 calibration needs images. Give some with --data or --images.")
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
    """Bytes of the file, or of all files of the folder, that `export` would write. Nothing is checked or kept.

    int8 is calibrated on noise, because activation ranges do not affect the size.

    Raises:
        UserError: the network cannot be exported.
    """
    exporter, size = check_export(settings), _whole_strides(network, image_size)
    random = torch.Generator().manual_seed(0)
    noise = [
        torch.randint(0, 256, (channels_of(network), *size), generator=random, dtype=torch.uint8) for _ in range(2)
    ]
    source = Source.of(network, size, about, noise)
    with tempfile.TemporaryDirectory() as folder:
        # Use the usual file name of a pruned network: some formats repeat it for every tensor.
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
    """Writes the same file with other outputs if those are compared instead (`Outputs.judged_as`); otherwise yields the
    file.
    """
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
