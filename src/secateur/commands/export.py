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
    """Write files for other runtimes and check that they give the detector's outputs."""

    weights: Weights = ""
    image_size: ImageSize = 0
    export: ExportSettings = field(default_factory=ExportSettings)
    place: Place = field(default_factory=Place)


@command("export", "write files for other runtimes and check their outputs", lambda: ExportOptions, order=100)
def export(options: ExportOptions) -> Summary:
    """Writes a file of each format into a fresh folder."""
    from secateur.compression.measuring import describe, usable_size
    from secateur.deploy.exporting import exported
    from secateur.detector.checkpoint import load_checkpoint

    weights = require(options.weights, "--weights", "best.pt")
    each = options.export.each()
    checkpoint = load_checkpoint(weights)
    image_size = usable_size(checkpoint, options.image_size)
    folder = options.place.new("export")
    written = []
    with removed_on_failure(folder):
        for settings in each:
            result = exported(checkpoint, folder / Path(weights).stem, image_size, settings)
            print(f"{result.path}: {result.file_mb:.2f} MB, outputs within {result.max_error:.1e} of the detector's")
            for note in result.notes:
                print(note)
            written.append({"format": settings.format, **result.to_dict()})
    summary = {"command": "export", "model": describe(checkpoint, image_size)}
    return finish(folder, summary | {"export": written[0], "files": written})
