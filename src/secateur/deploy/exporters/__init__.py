"""Writes detectors as files for other runtimes. A format is one file here that registers an `Exporter`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.deploy.settings import ExportSettings
from secateur.detector.architecture import DetectionNetwork
from secateur.errors import UserError
from secateur.evaluation.validate import check_image_size
from secateur.registry import Registry


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: the file.
        max_error: largest difference between the runtime and the detector, see `check.output_error`.
        size: height and width of the input in pixels.
        batch: images of the input; 0 when any number is accepted.
        file_mb: size of the file in megabytes (10^6 bytes).
        details: what else is to be said of this format, such as ONNX' opset.
        notes: sentences for the user.
    """

    path: Path
    max_error: float
    size: tuple[int, int]
    batch: int
    file_mb: float
    details: Mapping[str, int | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the file by its name."""
        return {
            "file": self.path.name,
            "max_error": self.max_error,
            "size": list(self.size),
            "batch": self.batch,
            **self.details,
            "file_mb": self.file_mb,
        }


@dataclass(frozen=True)
class Exporter:
    """One format.

    Attributes:
        title: its name in sentences, "ONNX".
        suffix: of its files, ".onnx".
        packages: what must be installed.
        extra: the extra of this package that brings them.
        write: writes a file from a detector for images of (height, width), which are multiples of the largest stride,
            and checks it before it gets its name.
    """

    title: str
    suffix: str
    packages: tuple[str, ...]
    extra: str
    write: Callable[[DetectionNetwork, Path, tuple[int, int], ExportSettings], Exported]

    def missing(self) -> str:
        """The first of the packages that cannot be imported; "" when all are there."""
        for package in self.packages:
            try:
                importlib.import_module(package)
            except ImportError:
                return package
        return ""


EXPORTERS: Registry[Exporter] = Registry("export format", "secateur.deploy.exporters")


def check_export(settings: ExportSettings) -> Exporter:
    """What writes the format that the settings name.

    Raises:
        UserError: an unknown format, or a package of it is not installed.
    """
    exporter = EXPORTERS[settings.format]
    if package := exporter.missing():
        raise UserError(
            f"{exporter.title} export needs the package {package}: pip install 'secateur[{exporter.extra}]'."
        )
    return exporter


def export(
    network: DetectionNetwork,
    path: str | Path,
    image_size: int | tuple[int, int],
    settings: ExportSettings | None = None,
) -> Exported:
    """Writes a detector as a file for another runtime; the file appears only when it gives the detector's outputs.

    Args:
        network: any device, training or not; it is left as it is.
        path: the file to write.
        image_size: side, or height and width, of the input in pixels; rounded up to multiples of the largest stride.
        settings: format and its options; None takes the defaults.

    Raises:
        UserError: unknown format, a package is not installed, the export or its check fails, or the file cannot be
            written.
    """
    settings = settings or ExportSettings()
    exporter = check_export(settings)
    stride = int(max(network.strides))
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = check_image_size(height, stride), check_image_size(width, stride)
    return exporter.write(network, Path(path), size, settings)
