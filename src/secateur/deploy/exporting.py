"""Checkpoints as files for other runtimes, with what the file is to say of them."""

from __future__ import annotations

from pathlib import Path

from secateur.deploy.exporters import EXPORTERS, Exported, export
from secateur.deploy.settings import ExportSettings
from secateur.detector.checkpoint import Checkpoint


def exported(checkpoint: Checkpoint, stem: Path, image_size: int, settings: ExportSettings) -> Exported:
    """Writes one format; the file is the stem with the ending of its format.

    Raises:
        UserError: as `deploy.exporters.export` raises it.
    """
    file = stem.with_name(stem.name + EXPORTERS[settings.format].suffix)
    return export(checkpoint.detector(), file, image_size, settings, about=about(checkpoint))


def about(checkpoint: Checkpoint) -> dict[str, str]:
    """Who wrote the file, what was done to the detector, and under which licence its weights are, if they say so."""
    from secateur import __version__

    told = {"producer": f"Secateur {__version__}"}
    if checkpoint.history:
        told["lineage"] = " > ".join(stage.verb for stage in checkpoint.history)
    licence = checkpoint.training.get("license")
    if isinstance(licence, str):
        told["license"] = licence
    return told
