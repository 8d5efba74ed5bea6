"""Exports checkpoints to other runtimes, with their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from secateur.data.index import Index
from secateur.deploy.exporters import EXPORTERS, Exported, export
from secateur.deploy.int8 import judge_on
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.networks.checkpoint import Checkpoint
from secateur.sizes import ImageSize


def exported(
    checkpoint: Checkpoint,
    stem: Path,
    image_size: ImageSize,
    settings: ExportSettings,
    images: Sequence[Tensor] = (),
    judged_on: Index | None = None,
) -> Exported:
    """Exports to one format. The file name is the stem plus the ending of the format.

    Args:
        checkpoint: the network.
        stem: path without the ending.
        image_size: side, or height and width, of the input in pixels.
        settings: settings of one format.
        images: uint8 [C, H, W] of the image size, for int8 calibration.
        judged_on: labelled images on which `accuracy_drop` limits the loss of mAP50-95.

    Raises:
        UserError: see `deploy.exporters.export`.
    """
    file = stem.with_name(stem.name + EXPORTERS[settings.format].suffix)
    judge = judge_on(judged_on, image_size) if judged_on is not None else None
    return export(checkpoint.build(), file, image_size, settings, about=about(checkpoint), images=images, judge=judge)


def format_of(path: str | Path, named: str = "", family: str = "") -> str:
    """The export format for the ending of a file name.

    Args:
        path: the file.
        named: format requested by the caller; "" derives it from the ending.
        family: family of the network; its own format is preferred if several have the ending, such as .pt.

    Raises:
        UserError: no format has the ending, or the requested format has another ending.
    """
    name = Path(path).name.lower()
    fitting = [entry for entry, exporter in EXPORTERS.items() if name.endswith(exporter.suffix)]
    if named and named not in fitting:
        ending = EXPORTERS[named].suffix
        raise UserError(
            f"{path} does not end in {ending}, the ending of format {named}. Change the name or the format."
        )
    if fitting:
        return named or (family if family in fitting else fitting[-1])
    endings = ", ".join(f"{exporter.suffix} ({entry})" for entry, exporter in EXPORTERS.items())
    raise UserError(f"No export format has the ending of {path}. Choose a name that ends in one of {endings}.")


def about(checkpoint: Checkpoint) -> dict[str, str]:
    """Metadata for exported files: the program, the history of the detector, and the licence of its weights if
    known.
    """
    from secateur import __version__

    told = {"producer": f"Secateur {__version__}"}
    if checkpoint.history:
        told["lineage"] = " > ".join(entry.verb for entry in checkpoint.history)
    licence = checkpoint.training.get("license")
    if isinstance(licence, str):
        told["license"] = licence
    marks = {"single_cls": checkpoint.single_cls, "narrowed": checkpoint.narrowed}
    return told | {name: "True" for name, true in marks.items() if true}
