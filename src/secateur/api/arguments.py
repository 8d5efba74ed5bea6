"""Converts API arguments (model, data set, size, device) to networks, checkpoints and contexts."""

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
"""A checkpoint, a network, or the path of a checkpoint file."""
Data = str | Path | DataSet
"""A data.yaml or another description that the network's family reads, or an opened data set."""
Size = int | Sequence[int]
"""Side in pixels, or (height, width); 0 uses the size stored in the model."""
Device = str | int | torch.device


def network_of(model: Model) -> nn.Module:
    """The network of a checkpoint or of a checkpoint file, or the network itself."""
    return model if isinstance(model, nn.Module) else checkpoint_of(model).build()


def checkpoint_of(model: Model) -> Checkpoint:
    """The checkpoint of a network or in a file, or the checkpoint itself.

    Raises:
        TypeError: the argument has another type.
        UserError: the file is not a checkpoint.
    """
    if isinstance(model, Checkpoint):
        return model
    if isinstance(model, nn.Module):
        return Checkpoint.of(model)
    if isinstance(model, str | Path):
        if is_exported(model):
            raise UserError(f"{model} is an exported file, which can only be run. Give the checkpoint.")
        return load_checkpoint(model)
    raise TypeError(f"A {type(model).__name__} is not a model. Give a checkpoint, a network or the path of a file.")


def detector_of(function: Callable[..., Any], model: Model) -> Checkpoint:
    """The checkpoint of a network that belongs to a family.

    Raises:
        UserError: it is a plain module, which has no detection outputs.
    """
    checkpoint = checkpoint_of(model)
    if isinstance(checkpoint.architecture, PlainModule):
        raise UserError(
            f"{title_of(function)} needs a detector, but this is a {checkpoint.architecture}. "
            "secateur.families.detection.network lists what a detector must implement."
        )
    return checkpoint


def predictable(function: Callable[..., Any], model: Model | Predictor) -> Checkpoint | Predictor | str | Path:
    """An argument that can predict boxes: a checkpoint, a predictor, or the name of an exported file."""
    if isinstance(model, Checkpoint | nn.Module):
        return detector_of(function, model)
    if isinstance(model, str | Path):
        return model if runtime_of(model).exported else detector_of(function, model)
    if isinstance(model, Predictor):
        return model
    raise TypeError(f"A {type(model).__name__} is not a model. Give a checkpoint, a network or the path of a file.")


def data_of(data: Data, family: Family) -> DataSet:
    """The description of a data set, read by a family."""
    if isinstance(data, DataSet):
        return data
    opened: DataSet = family.open_data(str(data))
    return opened


def size_of(function: Callable[..., Any], image_size: Size, *, square: bool = False) -> Any:
    """A size as one number, or as (height, width); two equal sides become one number.

    Args:
        function: the API function, for error messages.
        image_size: the argument.
        square: whether the function supports only squares.

    Raises:
        TypeError: it is neither an integer nor a pair of integers.
        UserError: a number is out of range, or a square is required.
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
            f"{title_of(function)} supports only square images, but image_size is ({height}, {width}). Give "
            f"one number, such as {max(height, width)}."
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
    """Opens the context for the steps. An image size of 0 uses the one stored in the checkpoint.

    Args:
        function: the API function, for error messages.
        checkpoint: the network.
        data: the data set, or None.
        images: see `api.images.each_image`, or a data.yaml; None uses the images of `data`.
        rgb: arrays among the images are RGB.
        image_size: px of a side, or (height, width).
        batch_size: images per batch.
        seed: random seed.
        device: device to run on.
    """
    size = usable_size(checkpoint, size_of(function, image_size, square=True))
    batch_size, seed = number(function, "batch_size", batch_size, BATCH), number(function, "seed", seed, SEED)
    loaded = data_of(data, family_of(checkpoint)) if data is not None else None
    place = pick_device(device)
    with described(images, checkpoint.names, rgb=typed(function, "rgb", rgb, bool)) as seen:
        yield Context(size, place, loaded, batch_size=batch_size, workers=0, seed=seed, unlabelled=seen)


def workers_of(function: Callable[..., Any], workers: int) -> int:
    """Checks the number of loader processes."""
    return number(function, "workers", workers, WORKERS)


def healed(
    start: Checkpoint, teacher: Checkpoint, context: Context, settings: HealSettings, folder: str = ""
) -> Checkpoint:
    """The best checkpoint of a healing. Without a folder, no files are kept."""
    with tempfile.TemporaryDirectory() as scratch:
        best = heal(start, teacher, context, settings, Path(folder or scratch)).best
        # A plain module exists only in memory, not in a file.
        return dataclasses.replace(load_checkpoint(best), architecture=start.architecture)
