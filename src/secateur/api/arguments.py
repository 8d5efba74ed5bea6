"""What the functions of the API make of their arguments: a network, a checkpoint, a context, settings."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.compression.context import Context
from secateur.compression.heal import heal
from secateur.compression.measuring import usable_size
from secateur.compression.settings import ChannelSettings
from secateur.data.config import load_data_config, pictures
from secateur.detector.checkpoint import Checkpoint, load_checkpoint
from secateur.distillation.settings import HealSettings
from secateur.machine import pick_device

Network = TypeVar("Network", bound=nn.Module)
Model = TypeVar("Model", Checkpoint, nn.Module)
Floats = NDArray[np.float64]


def network_of(model: Checkpoint | nn.Module) -> nn.Module:
    """The network of a checkpoint, or the network itself."""
    return model.detector() if isinstance(model, Checkpoint) else model


def checkpoint_of(model: Checkpoint | nn.Module) -> Checkpoint:
    """The checkpoint of a network, or the checkpoint itself."""
    return model if isinstance(model, Checkpoint) else Checkpoint.of(model)


def context_of(
    checkpoint: Checkpoint,
    data: str | Path | None,
    *,
    images: str | Path | None = None,
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: str = "auto",
) -> Context:
    """What the steps compute with; an image size of 0 takes the one that the checkpoint remembers."""
    loaded = load_data_config(data) if data is not None else None
    size = usable_size(checkpoint, image_size)
    seen = pictures(images, checkpoint.names) if images is not None else None
    return Context(size, pick_device(device), loaded, batch_size=batch_size, workers=0, seed=seed, images=seen)


def healed(
    start: Checkpoint, teacher: Checkpoint, context: Context, settings: HealSettings, folder: str = ""
) -> Checkpoint:
    """The best of a healing; without a folder nothing of it is kept."""
    with tempfile.TemporaryDirectory() as scratch:
        return load_checkpoint(heal(start, teacher, context, settings, Path(folder or scratch)).best)


def taken(kind: type[Any], options: dict[str, Any]) -> Any:
    """Settings from those of the options that are its fields; they leave `options`."""
    names = [entry.name for entry in dataclasses.fields(kind)]
    return kind(**{name: options.pop(name) for name in names if name in options})


def refuse(options: dict[str, Any]) -> None:
    """TypeError for options that nothing took."""
    if options:
        raise TypeError(f"unknown option {next(iter(options))!r}")


def without_cliff(settings: ChannelSettings) -> ChannelSettings:
    """The same without the cliff curve, which is for people to look at."""
    return dataclasses.replace(settings, cliff=dataclasses.replace(settings.cliff, cliff=False))
