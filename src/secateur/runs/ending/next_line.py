"""The command that comes next, as a line that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secateur.checkpoints.training import can_be_trained
from secateur.families.family import family_of
from secateur.networks.checkpoint import Checkpoint

EPOCHS = 30
"""Of the fine-tuning that is proposed after a cut."""
EXAMPLE, EXAMPLE_SHARE = "data.yaml", "0.5"


def pasted(command: str, **options: Any) -> str:
    """A command line whose words a shell reads as they are meant: paths with spaces are quoted.

    Args:
        options: by their names, `_` for `-`; those that are empty are left out.
    """
    given = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value not in ("", None)]
    return shlex.join(["secateur", command, *(word for pair in given for word in pair)])


def say(line: str) -> None:
    """Prints the line that a command ends with; "" prints nothing."""
    if line:
        print(f"Next:  {line}")


def after_cut(file: Path, made: Checkpoint, *, data: str = "", images: str = "", zeroed: bool = False) -> str:
    """What follows a cut: a fine-tuning on the data set; on images alone a healing, and after that the answers; the
    export where the network cannot be trained.

    Args:
        made: the checkpoint in `file`.
        data, images: what was given to the cut, "" for nothing.
        zeroed: weights were zeroed and nothing was cut.
    """
    if zeroed or not can_be_trained(made):
        return export_of(file)
    healed = any(entry.verb == "heal" for entry in made.history)
    if images and not data and family_of(made).knows("split"):
        return prediction(file, made, images) if healed else pasted("heal", weights=file, images=images)
    return pasted("finetune", weights=file, data=data or EXAMPLE, epochs=EPOCHS)


def after_training(verb: str, file: Path, made: Checkpoint, data: Any) -> str:
    """What follows a training: the cut after sparse training, the export after fine-tuning, else the answers.

    Args:
        verb: "train", "sparsify" or "finetune".
        data: the data set that it was trained on.
    """
    if verb == "sparsify":
        return pasted("prune", weights=file, data=data.file, flops=EXAMPLE_SHARE)
    return export_of(file) if verb == "finetune" else prediction(file, made, looked_at(data))


def after_run(folder: Path, made: Checkpoint, data: Any, exported: str = "") -> str:
    """What follows a run: the answers of its file, or the export where it wrote none.

    Args:
        exported: name of the file that it wrote; "" for none.
    """
    if exported:
        return prediction(folder / exported, made, looked_at(data))
    return export_of(folder / "final.safetensors")


def after_sweep(weights: str, data: str, percent: float | None) -> str:
    """What follows a sweep: the cut at the last ratio before the cliff; one to half the FLOPs where it found none."""
    if percent:
        return pasted("prune", weights=weights, data=data, percent=f"{percent:g}")
    return pasted("prune", weights=weights, data=data, flops=EXAMPLE_SHARE)


def export_of(file: Path) -> str:
    """The export of a checkpoint."""
    return pasted("export", weights=file)


def prediction(file: Path, made: Checkpoint, source: str) -> str:
    """The answers on images, where the family gives boxes and there are images; otherwise the export of a checkpoint.

    Args:
        made: the detector in the file.
        source: of images; "" where there are none.
    """
    if source and family_of(made).knows("predictor"):
        return pasted("predict", weights=file, source=source)
    return export_of(file) if file.suffix == ".safetensors" else ""


def looked_at(data: Any = None, images: str = "") -> str:
    """Images to try a detector on: those of the val split of a data set, or the given ones."""
    sources: Iterable[Any] = () if data is None else data.splits.get("val", ())
    places = [sources] if isinstance(sources, str | Path) else list(sources)
    return str(places[0]) if places else images
