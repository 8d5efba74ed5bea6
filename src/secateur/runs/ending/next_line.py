"""The suggested next command, ready to paste."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secateur.checkpoints.training import can_be_trained
from secateur.families.family import family_of
from secateur.networks.checkpoint import Checkpoint

EPOCHS = 30
"""Epochs of the suggested fine-tuning after a cut."""
EXAMPLE, EXAMPLE_SHARE = "data.yaml", "0.5"


def pasted(command: str, **options: Any) -> str:
    """A command line with arguments quoted for a shell.

    Args:
        command: name of the command.
        options: values by option name, `_` for `-`; empty values are omitted.
    """
    given = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value not in ("", None)]
    return shlex.join(["secateur", command, *(word for pair in given for word in pair)])


def say(line: str) -> None:
    """Prints the last line of a command; nothing for ""."""
    if line:
        print(f"Next:  {line}")


def after_cut(file: Path, made: Checkpoint, *, data: str = "", images: str = "", zeroed: bool = False) -> str:
    """The command after a cut: fine-tuning if there is a data set; healing if there are only images, then prediction;
    export if the network cannot be trained.

    Args:
        file: file of the checkpoint.
        made: the checkpoint in `file`.
        data, images: the data of the cut; may be empty.
        zeroed: whether weights were zeroed instead of a cut.
    """
    if zeroed or not can_be_trained(made):
        return export_of(file)
    healed = any(entry.verb == "heal" for entry in made.history)
    if images and not data and family_of(made).knows("split"):
        return prediction(file, made, images) if healed else pasted("heal", weights=file, images=images)
    return pasted("finetune", weights=file, data=data or EXAMPLE, epochs=EPOCHS)


def after_training(verb: str, file: Path, made: Checkpoint, data: Any) -> str:
    """The command after a training: a cut after sparse training, an export after fine-tuning, otherwise a prediction.

    Args:
        verb: "train", "sparsify" or "finetune".
        file: file of the checkpoint.
        made: the checkpoint in `file`.
        data: the data set of the training.
    """
    if verb == "sparsify":
        return pasted("prune", weights=file, data=data.file, flops=EXAMPLE_SHARE)
    return export_of(file) if verb == "finetune" else prediction(file, made, looked_at(data))


def after_run(folder: Path, made: Checkpoint, data: Any, exported: str = "") -> str:
    """The command after a run: a prediction with its exported file, or an export if there is none.

    Args:
        folder: folder of the run.
        made: the final checkpoint.
        data: the data set of the run.
        exported: name of the exported file; "" if there is none.
    """
    if exported:
        return prediction(folder / exported, made, looked_at(data))
    return export_of(folder / "final.safetensors")


def after_sweep(weights: str, data: str, percent: float | None) -> str:
    """The command after a sweep: a cut at the last ratio before the cliff, or to half the FLOPs without a cliff."""
    if percent:
        return pasted("prune", weights=weights, data=data, percent=f"{percent:g}")
    return pasted("prune", weights=weights, data=data, flops=EXAMPLE_SHARE)


def export_of(file: Path) -> str:
    """The export command for a checkpoint."""
    return pasted("export", weights=file)


def prediction(file: Path, made: Checkpoint, source: str) -> str:
    """A prediction on images, if the family predicts boxes and images are available; otherwise the export of a
    checkpoint.

    Args:
        file: file of the detector.
        made: the detector in the file.
        source: images; may be empty.
    """
    if source and family_of(made).knows("predictor"):
        return pasted("predict", weights=file, source=source)
    return export_of(file) if file.suffix == ".safetensors" else ""


def looked_at(data: Any = None, images: str = "") -> str:
    """Images on which to try a detector: the val split of a data set, or the given images."""
    sources: Iterable[Any] = () if data is None else data.splits.get("val", ())
    places = [sources] if isinstance(sources, str | Path) else list(sources)
    return str(places[0]) if places else images
