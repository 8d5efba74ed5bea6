"""What the functions of the API make of a model, a data set, a size, a device: networks, checkpoints, contexts."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.api.images import Source, described
from secateur.api.options import number, title_of, typed
from secateur.checkpoints.heal import heal
from secateur.deploy.runtimes import is_exported, runtime_of
from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.families.context import Context
from secateur.families.evaluation import usable_size
from secateur.families.family import Family, family_of
from secateur.families.loading import load_checkpoint
from secateur.families.reading import DataSet
from secateur.machine import pick_device
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.plain_module import PlainModule
from secateur.ranges import BATCH, PIXELS, SEED, WORKERS, Between

Model = Checkpoint | nn.Module | str | Path
"""A checkpoint, a network, or the file of a checkpoint."""
Data = str | Path | DataSet
"""A data.yaml or what else the family of the network reads, or what it made of one."""
Size = int | Sequence[int]
"""Pixels of a side, or height and width; 0 takes what the model remembers."""
Device = str | int | torch.device


def network_of(model: Model) -> nn.Module:
    """The network of a checkpoint or of the file of one, or the network itself."""
    return model if isinstance(model, nn.Module) else checkpoint_of(model).build()


def checkpoint_of(model: Model) -> Checkpoint:
    """The checkpoint of a network, that in a file, or the checkpoint itself.

    Raises:
        TypeError: it is nothing of that.
        UserError: the file is no checkpoint.
    """
    if isinstance(model, Checkpoint):
        return model
    if isinstance(model, nn.Module):
        return Checkpoint.of(model)
    if isinstance(model, str | Path):
        if is_exported(model):
            raise UserError(f"{model} is an exported file, which can be run and nothing more; give the checkpoint.")
        return load_checkpoint(model)
    raise TypeError(f"A {type(model).__name__} is no model; give a checkpoint, a network or the path of a file.")


def detector_of(function: Callable[..., Any], model: Model) -> Checkpoint:
    """The checkpoint of a network that belongs to a family.

    Raises:
        UserError: it is a plain module, which says nothing of boxes.
    """
    checkpoint = checkpoint_of(model)
    if isinstance(checkpoint.architecture, PlainModule):
        raise UserError(
            f"{title_of(function)} needs a detector, and this is a {checkpoint.architecture}: "
            "secateur.families.detection.network lists what a detector offers."
        )
    return checkpoint


def predictable(function: Callable[..., Any], model: Model | Predictor) -> Checkpoint | Predictor | str | Path:
    """What boxes can be asked of: a checkpoint, a predictor, or the name of an exported file."""
    if isinstance(model, Checkpoint | nn.Module):
        return detector_of(function, model)
    if isinstance(model, str | Path):
        return model if runtime_of(model).exported else detector_of(function, model)
    if isinstance(model, Predictor):
        return model
    raise TypeError(f"A {type(model).__name__} is no model; give a checkpoint, a network or the path of a file.")


def data_of(data: Data, family: Family) -> DataSet:
    """The description of a data set, as a family reads it."""
    if isinstance(data, DataSet):
        return data
    opened: DataSet = family.open_data(str(data))
    return opened


def size_of(function: Callable[..., Any], image_size: Size, *, square: bool = False) -> Any:
    """A size as one number or as (height, width); two equal sides are one number.

    Args:
        square: the function takes squares alone.

    Raises:
        TypeError: it is neither a whole number nor two.
        UserError: a number out of range, or two sides where a square is needed.
    """
    if not isinstance(image_size, Sequence) or isinstance(image_size, str):
        return number(function, "image_size", image_size, PIXELS)
    if len(image_size) != 2:
        raise TypeError(f"{title_of(function)}: image_size is {image_size!r}; it must be a number or (height, width).")
    sides = Between(1, PIXELS.most)
    height, width = (number(function, "image_size", side, sides) for side in image_size)
    if height == width:
        return height
    if square:
        raise UserError(
            f"{title_of(function)} needs square images: image_size is ({height}, {width}); give one number, such as "
            f"{max(height, width)}."
        )
    return height, width


@contextmanager
def context_of(
    function: Callable[..., Any],
    checkpoint: Checkpoint,
    data: Data | None,
    *,
    images: Source = None,
    rgb: bool = False,
    image_size: Size = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: Device = "auto",
) -> Iterator[Context]:
    """What the steps compute with, while the block lasts; an image size of 0 takes the one that is remembered.

    Args:
        function: that was called, for the errors.
        images: as `api.images.each_image` takes them, or a data.yaml; None reads those of `data`.
    """
    size = usable_size(checkpoint, size_of(function, image_size, square=True))
    batch_size, seed = number(function, "batch_size", batch_size, BATCH), number(function, "seed", seed, SEED)
    loaded = data_of(data, family_of(checkpoint)) if data is not None else None
    place = pick_device(device)
    with described(images, checkpoint.names, rgb=typed(function, "rgb", rgb, bool)) as seen:
        yield Context(size, place, loaded, batch_size=batch_size, workers=0, seed=seed, unlabelled=seen)


def workers_of(function: Callable[..., Any], workers: int) -> int:
    """A number of processes that load images."""
    return number(function, "workers", workers, WORKERS)


def healed(
    start: Checkpoint, teacher: Checkpoint, context: Context, settings: HealSettings, folder: str = ""
) -> Checkpoint:
    """The best of a healing; without a folder nothing of it is kept."""
    with tempfile.TemporaryDirectory() as scratch:
        best = heal(start, teacher, context, settings, Path(folder or scratch)).best
        # The network of a plain module is in memory and in no file.
        return dataclasses.replace(load_checkpoint(best), architecture=start.architecture)
