"""A `.pt` of the package ultralytics, which the family of that name writes."""

from __future__ import annotations

from pathlib import Path

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError

FAMILY = "ultralytics"


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`. Our reader opens it like any other checkpoint."""
    if source.family.kind != FAMILY:
        raise UserError(
            f"Only a network of the family '{FAMILY}' can be written as a checkpoint of Ultralytics, not one of the "
            f"family '{source.family.kind}': choose another --format."
        )
    note = source.family.write(source.whole, path, max(source.size))
    return Written(notes=(note,) if note else ())


EXPORTERS.register("ultralytics")(Exporter("Ultralytics", ".pt", ("ultralytics",), "ultralytics", write, dynamic=True))
