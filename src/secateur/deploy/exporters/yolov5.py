"""YOLOv5's own `.pt`, which the family of that name writes."""

from __future__ import annotations

from pathlib import Path

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError

FAMILY = "yolov5"


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`. Our reader opens it like any other checkpoint."""
    if source.family.kind != FAMILY:
        raise UserError(
            f"Only a network of the family '{FAMILY}' can be written as a checkpoint of YOLOv5, not one of the family "
            f"'{source.family.kind}': choose another --format."
        )
    note = source.family.write(source.whole, path, max(source.size))
    return Written(notes=(note,) if note else ())


EXPORTERS.register("yolov5")(Exporter("YOLOv5", ".pt", (), "", write, dynamic=True))
