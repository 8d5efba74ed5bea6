"""Checkpoints as files for other runtimes, with what the file is to say of them."""

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
    """Writes one format; the file is the stem with the ending of its format.

    Args:
        image_size: side, or height and width, of the input in pixels.
        images: uint8 [C, H, W] of the image size, for int8.
        judged_on: labelled images by whose mAP50-95 `accuracy_drop` is held.

    Raises:
        UserError: as `deploy.exporters.export` raises it.
    """
    file = stem.with_name(stem.name + EXPORTERS[settings.format].suffix)
    judge = judge_on(judged_on, image_size) if judged_on is not None else None
    return export(checkpoint.build(), file, image_size, settings, about=about(checkpoint), images=images, judge=judge)


def format_of(path: str | Path, named: str = "", family: str = "") -> str:
    """The format whose ending a file name has.

    Args:
        named: the format that the caller asks for; "" takes the one of the ending.
        family: of the network: where several formats have the ending, as .pt has, that of its own is taken.

    Raises:
        UserError: no format has the ending, or another one than was asked for.
    """
    name = Path(path).name.lower()
    fitting = [entry for entry, exporter in EXPORTERS.items() if name.endswith(exporter.suffix)]
    if named and named not in fitting:
        ending = EXPORTERS[named].suffix
        raise UserError(f"{path} does not end in {ending}, as files of format {named} do; change one of the two.")
    if fitting:
        return named or (family if family in fitting else fitting[-1])
    endings = ", ".join(f"{exporter.suffix} ({entry})" for entry, exporter in EXPORTERS.items())
    raise UserError(f"No export format has the ending of {path}; choose a name that ends in one of {endings}.")


def about(checkpoint: Checkpoint) -> dict[str, str]:
    """Who wrote the file, what was done to the detector, and under which licence its weights are, if they say so."""
    from secateur import __version__

    told = {"producer": f"Secateur {__version__}"}
    if checkpoint.history:
        told["lineage"] = " > ".join(entry.verb for entry in checkpoint.history)
    licence = checkpoint.training.get("license")
    if isinstance(licence, str):
        told["license"] = licence
    marks = {"single_cls": checkpoint.single_cls, "narrowed": checkpoint.narrowed}
    return told | {name: "True" for name, true in marks.items() if true}
