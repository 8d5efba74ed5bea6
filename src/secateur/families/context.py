"""The context of a step in one object: data, image size, device, seed, folder and the dense reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch

from secateur.data.config import DataConfig
from secateur.errors import UserError
from secateur.families.reading import DataSet
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.classes import ONE_CLASS, Named, check_classes, plain

LOG = logging.getLogger("secateur")
Data = TypeVar("Data", bound=DataSet)


@runtime_checkable
class _SaysOneClass(Protocol):
    """A checkpoint or a predictor."""

    @property
    def single_cls(self) -> bool:
        """Whether it has a single class that replaces all classes of its data set (--single-cls)."""


@runtime_checkable
class _SaysNarrowed(Protocol):
    """A checkpoint or a predictor."""

    @property
    def narrowed(self) -> bool:
        """Whether it was reduced to some of its classes (--classes)."""


def is_one_class(detector: Named) -> bool:
    """Whether a detector was trained with --single-cls."""
    return isinstance(detector, _SaysOneClass) and detector.single_cls


def as_one_class(data: Data) -> Data:
    """The data set with all objects in one class; a single class keeps its name."""
    names = dict(data.names) if data.nc == 1 else {0: ONE_CLASS}
    return cast(Data, replace(cast(Any, data), names=names, one_class=True))


def with_its_classes(detector: Named, data: Data, weights: str = "The detector") -> Data:
    """The data set with only the classes of a detector that was reduced to some of them (--classes); otherwise
    unchanged.

    Objects of other classes become background, as they are for the detector.
    """
    if not (isinstance(detector, _SaysNarrowed) and detector.narrowed and isinstance(data, DataConfig)):
        return data
    comparable = {plain(name): number for number, name in data.names.items()}
    wanted = [comparable.get(plain(name)) for name in detector.names.values()]
    kept = [number for number in wanted if number is not None]
    if len(comparable) < data.nc or len(kept) < len(wanted) or data.nc <= len(kept):
        return data
    left = data.nc - len(kept)
    LOG.info("%s was narrowed by --classes: labels of the %d other classes of %s are ignored", weights, left, data.file)
    return cast(Data, data.with_classes(kept))


def known_data(detector: Named, data: Data, weights: str = "The detector", *, otherwise: str = "") -> Data:
    """The data set with the classes of a detector: one class after --single-cls, some of the classes after --classes.

    All code that reads labels for a detector must call this first.

    Args:
        detector: a checkpoint, a network or a predictor.
        weights: its file, for the error message.
        otherwise: an alternative for the user, for the error message.

    Raises:
        UserError: the detector does not have these classes.
    """
    if not data.labelled:
        return data
    if is_one_class(detector):
        if data.nc > 1:
            LOG.info("%s was trained with --single-cls: all objects of %s are treated as one class", weights, data.file)
        return as_one_class(data)
    data = with_its_classes(detector, data, weights)
    check_classes(detector, data.names, weights, str(data.file), otherwise=otherwise)
    return data


@dataclass(frozen=True)
class Context:
    """Environment and inputs of a step.

    Attributes:
        image_size: image size in pixels, a multiple of the largest stride.
        device: device for all computations.
        data: the data set; None if not given.
        batch_size: images per batch of training data.
        workers: processes that load images.
        seed: seed of all random numbers.
        unlabelled: images without labels for scoring, correction and healing; None: the training images of the data
            set.
        dense: the network that budgets refer to and that teaches; None: the network that a step receives.
        start: checkpoint that the run starts from, before any training; None: `dense`.
        folder: folder for output files; None: no files are written.
        compared: files of checkpoints to compare the run with, by row name.
        epoch_seconds: seconds per epoch of the last training of the run; None if nothing was trained yet.
        spent: seconds that the steps of the run have taken so far.
        first: whether this is the first step.
        name_suffix: suffix of file names of a repeated step ("-2").
        title: name of the row of the step.
        round, rounds: position in a repetition, from 1.
    """

    image_size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    data: DataSet | None = None
    batch_size: int = 16
    workers: int = 2
    seed: int = 0
    unlabelled: DataSet | None = None
    dense: Checkpoint | None = None
    start: Checkpoint | None = None
    folder: Path | None = None
    compared: Mapping[str, Path] = field(default_factory=dict)
    epoch_seconds: float | None = None
    spent: float = 0.0
    first: bool = True
    name_suffix: str = ""
    title: str = ""
    round: int = 1
    rounds: int = 1

    @property
    def image_source(self) -> DataSet | None:
        """Images for closed-form steps and healing: the unlabelled images if given, otherwise the data set."""
        return self.data if self.unlabelled is None else self.unlabelled

    def require_images(self, reader: str) -> DataSet:
        """The result of `image_source`.

        Raises:
            UserError: there are no images; the message names `reader`.
        """
        if self.image_source is None:
            raise UserError(f"{reader} needs images. Set --images FOLDER or --data data.yaml.")
        return self.image_source

    def require_data(self, reader: str) -> DataSet:
        """The data set.

        Raises:
            UserError: there is no data set; the message names `reader`.
        """
        if self.data is None:
            raise UserError(f"{reader} needs a data set. Set --data, for example --data data.yaml.")
        return self.data

    def known_to(self, detector: Named, *, otherwise: str = "") -> Context:
        """A copy with the data set restricted to the classes of the detector, see `known_data`.

        Raises:
            UserError: the detector does not have the classes of the data set.
        """
        return self if self.data is None else replace(self, data=known_data(detector, self.data, otherwise=otherwise))

    def place(self, name: str) -> Path:
        """The folder for the files of one part of the work.

        Raises:
            UserError: the context has no folder.
        """
        if self.folder is None:
            raise UserError("This step writes files and needs a folder. Set the folder of the context.")
        return self.folder / f"{name}{self.name_suffix}"
