"""Options of a training of Secateur as options of the package's trainers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from secateur.data.config import DataConfig
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.training import OwnTraining
from secateur.families.ultralytics.driving.data import described
from secateur.families.ultralytics.network import UltralyticsNetwork
from secateur.machine import pick_device
from secateur.training.distributed import rank_and_world
from secateur.training.hooks import Hook
from secateur.training.hyp import NAMES, Hyp
from secateur.training.settings import TrainSettings
from secateur.yaml_files import read_yaml

DATA = "ultralytics_data"
"""Folder in the run folder with the description of the images for the package."""
MULTI_SCALE = 0.5
DISTILLS = "features"
"""What the package's own distillation is called here."""
_NOT_THEIRS = {
    "label_smoothing": "smooths no labels",
    "save_every_steps": "saves only at the end of an epoch",
}


def check_settings(settings: TrainSettings, distill: DistillSettings) -> None:
    """Refuses what the package's trainers do not have.

    Raises:
        UserError: naming the option.
    """
    usual = TrainSettings()
    for name, reason in _NOT_THEIRS.items():
        if getattr(settings, name) != getattr(usual, name):
            raise UserError(f"The trainer of the package ultralytics {reason}: leave --{name.replace('_', '-')} out.")
    if settings.val_every > 1:
        raise UserError(
            "The trainer of the package ultralytics evaluates after every epoch or the last one: give --val-every 1 or "
            "0."
        )
    if distill.distill not in ("", DISTILLS):
        raise UserError(f"The trainer of the package ultralytics distils only features: give --distill {DISTILLS}.")
    if rank_and_world()[1] > 1:
        raise UserError("Networks of Ultralytics are trained by one process here: start it without torchrun.")


def trainer_options(training: OwnTraining, network: UltralyticsNetwork) -> dict[str, Any]:
    """The overrides of a trainer."""
    settings, architecture = training.settings, network.architecture
    device = pick_device(settings.device)
    freeze = settings.freeze[0] if len(settings.freeze) == 1 else list(settings.freeze)
    # Losses weigh their parts as in the training that the network comes from.
    gains = {name: value for name, value in architecture.args.items() if name != "epochs"}
    return {
        **gains,
        **_rates(settings, hooks=bool(training.hooks)),
        "task": architecture.task,
        "mode": "train",
        "model": "",
        "data": str(_data(training, network)),
        "epochs": settings.epochs,
        "batch": settings.batch_size,
        "nbs": settings.nominal_batch,
        "imgsz": settings.image_size,
        "device": "cpu" if device.type == "cpu" else str(device.index or 0) if device.type == "cuda" else device.type,
        "workers": settings.workers,
        "seed": settings.seed,
        "cos_lr": settings.cos_lr,
        "rect": settings.rect,
        # A method whose course takes all epochs must not be cut short.
        "patience": settings.patience if all(type(hook).may_stop is Hook.may_stop for hook in training.hooks) else 0,
        "freeze": freeze or None,
        "multi_scale": MULTI_SCALE if settings.multi_scale else 0.0,
        "single_cls": settings.single_cls,
        "amp": device.type != "cpu" and {"off": False, "bf16": "bf16"}.get(settings.amp, True),
        "val": settings.val_every > 0,
        "nms": False if architecture.end_to_end else None,
        "save_dir": str(training.folder),
        "exist_ok": True,
    }


def _rates(settings: TrainSettings, *, hooks: bool) -> dict[str, Any]:
    """Optimizer and hyper-parameters: the package's own where none are given, for their names are the same.

    The package's `auto` chooses rates too. So hyper-parameters that are given, and methods that act on the optimizer,
    take SGD.
    """
    given = {name: getattr(settings.hyp, name) for name in NAMES}
    own = dataclasses.asdict(Hyp())
    changed = {name: value for name, value in given.items() if value != own[name]}
    optimizer = settings.optimizer
    if optimizer == "auto" and (changed or hooks):
        optimizer = "SGD"
    return {**given, "optimizer": optimizer} if optimizer != "auto" else {"optimizer": "auto"}


def _data(training: OwnTraining, network: UltralyticsNetwork) -> Path:
    """The description of the images for the package: the usable ones of the data set, by absolute paths."""
    data = training.data
    if not isinstance(data, DataConfig):
        return data.file
    folder = training.folder / DATA
    folder.mkdir(parents=True, exist_ok=True)
    splits = {name: training.splits[name] for name in ("train", "val")}
    more = {}
    if network.architecture.task == "pose":
        said = read_yaml(data.file, "data file")
        more = {key: said[key] for key in ("kpt_shape", "flip_idx", "kpt_oks_sigmas", "kpt_names") if key in said}
    return described(folder, splits, training.start.names, channels=network.architecture.channels, **more)
