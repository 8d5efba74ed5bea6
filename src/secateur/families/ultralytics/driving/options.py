"""Converts training options of Secateur to options of the trainers of the package."""

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
"""Folder in the run folder for the description of the images."""
MULTI_SCALE = 0.5
DISTILLS = "features"
"""Name of the distillation of the package in `--distill`."""
_NOT_THEIRS = {
    "label_smoothing": "does not support label smoothing",
    "save_every_steps": "saves only at the end of an epoch",
}


def check_settings(settings: TrainSettings, distill: DistillSettings) -> None:
    """Checks that the trainers of the package support all options.

    Raises:
        UserError: an option is not supported; the message names it.
    """
    usual = TrainSettings()
    for name, reason in _NOT_THEIRS.items():
        if getattr(settings, name) != getattr(usual, name):
            raise UserError(f"The trainer of the package ultralytics {reason}. Omit --{name.replace('_', '-')}.")
    if settings.val_every > 1:
        raise UserError(
            "The trainer of the package ultralytics evaluates after every epoch or only after the last. Set "
            "--val-every 1 or 0."
        )
    if distill.distill not in ("", DISTILLS):
        raise UserError(f"The trainer of the package ultralytics only supports --distill {DISTILLS}.")
    if rank_and_world()[1] > 1:
        raise UserError("Networks of Ultralytics are trained by a single process. Start the command without torchrun.")


def trainer_options(training: OwnTraining, network: UltralyticsNetwork) -> dict[str, Any]:
    """The options of a trainer."""
    settings, architecture = training.settings, network.architecture
    device = pick_device(settings.device)
    freeze = settings.freeze[0] if len(settings.freeze) == 1 else list(settings.freeze)
    # The weights of the loss terms are those of the training that the network comes from.
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
        # Early stopping must not interrupt a method whose schedule covers all epochs.
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
    """Optimizer and hyper-parameters; defaults of the package if none are set, because the names are the same.

    The option `auto` of the package also chooses learning rates. So SGD is used if hyper-parameters are set, or if a
    method acts on the optimizer.
    """
    given = {name: getattr(settings.hyp, name) for name in NAMES}
    own = dataclasses.asdict(Hyp())
    changed = {name: value for name, value in given.items() if value != own[name]}
    optimizer = settings.optimizer
    if optimizer == "auto" and (changed or hooks):
        optimizer = "SGD"
    return {**given, "optimizer": optimizer} if optimizer != "auto" else {"optimizer": "auto"}


def _data(training: OwnTraining, network: UltralyticsNetwork) -> Path:
    """The description of the images for the package, with absolute paths of the usable images of the data set."""
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
