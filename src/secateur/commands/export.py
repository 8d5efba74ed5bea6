"""`secateur export`: write a file for another runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from secateur.commands import Summary, command
from secateur.deploy.settings import ExportSettings
from secateur.runs.fields import ImageSize, Weights
from secateur.runs.folders import Place, finish, removed_on_failure, require


@dataclass(frozen=True)
class ExportOptions:
    """Write a file for another runtime and check that it gives the detector's outputs."""

    weights: Weights = ""
    image_size: ImageSize = 0
    export: ExportSettings = field(default_factory=ExportSettings)
    place: Place = field(default_factory=Place)


@command("export", "write a file for another runtime and check its outputs", lambda: ExportOptions, order=100)
def export(options: ExportOptions) -> Summary:
    """Writes one file into a fresh folder."""
    from secateur.compression.measuring import describe, usable_size
    from secateur.deploy.exporters import check_export
    from secateur.deploy.exporters import export as write
    from secateur.detector.checkpoint import load_checkpoint

    weights = require(options.weights, "--weights", "best.pt")
    exporter = check_export(options.export)
    checkpoint = load_checkpoint(weights)
    image_size = usable_size(checkpoint, options.image_size)
    folder = options.place.new("export")
    file = folder / f"{Path(weights).stem}{exporter.suffix}"
    with removed_on_failure(folder):
        result = write(checkpoint.detector(), file, image_size, options.export)
    print(f"{file}: {result.file_mb:.2f} MB, outputs within {result.max_error:.1e} of the detector's")
    for note in result.notes:
        print(note)
    described = {"format": options.export.format, **result.to_dict()}
    return finish(folder, {"command": "export", "model": describe(checkpoint, image_size), "export": described})
