"""What every step computes with, in one object: data, image size, device, seed, folder, and the dense reference."""

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
        """Whether it has one class in place of all classes of its data set (--single-cls)."""


@runtime_checkable
class _SaysNarrowed(Protocol):
    """A checkpoint or a predictor."""

    @property
    def narrowed(self) -> bool:
        """Whether it has some of the classes that it was trained on (--classes)."""


def is_one_class(detector: Named) -> bool:
    """Whether a detector has one class because it was trained with --single-cls."""
    return isinstance(detector, _SaysOneClass) and detector.single_cls


def as_one_class(data: Data) -> Data:
    """The data set whose objects are all of one class; a single class keeps its name."""
    names = dict(data.names) if data.nc == 1 else {0: ONE_CLASS}
    return cast(Data, replace(cast(Any, data), names=names, one_class=True))


def with_its_classes(detector: Named, data: Data, weights: str = "The detector") -> Data:
    """The data set with the classes of a detector that was narrowed to some of them (--classes); others stay.

    Objects of other classes are background, as they are for the detector.
    """
    if not (isinstance(detector, _SaysNarrowed) and detector.narrowed and isinstance(data, DataConfig)):
        return data
    comparable = {plain(name): number for number, name in data.names.items()}
    wanted = [comparable.get(plain(name)) for name in detector.names.values()]
    kept = [number for number in wanted if number is not None]
    if len(comparable) < data.nc or len(kept) < len(wanted) or data.nc <= len(kept):
        return data
    left = data.nc - len(kept)
    LOG.info("%s was narrowed by --classes: labels of %d other classes of %s are not read", weights, left, data.file)
    return cast(Data, data.with_classes(kept))


def known_data(detector: Named, data: Data, weights: str = "The detector", *, otherwise: str = "") -> Data:
    """The data set as a detector knows it: with one class for a detector that was trained with --single-cls, with some
    of the classes for one that was narrowed to them.

    Everything that reads the labels of a data set for a detector asks here first.

    Args:
        detector: a checkpoint, a network or a predictor.
        weights: its file, for the error.
        otherwise: what can be done instead, for the error.

    Raises:
        UserError: the detector does not know these classes.
    """
    if not data.labelled:
        return data
    if is_one_class(detector):
        if data.nc > 1:
            LOG.info("%s was trained with --single-cls: all objects of %s count as one class", weights, data.file)
        return as_one_class(data)
    data = with_its_classes(detector, data, weights)
    check_classes(detector, data.names, weights, str(data.file), otherwise=otherwise)
    return data


@dataclass(frozen=True)
class Context:
    """Where and with what a step works.

    Attributes:
        image_size: px, a multiple of the largest stride.
        device: on which everything is computed.
        data: the data set; None where none is given.
        batch_size: images in a batch of training data.
        workers: processes that load images.
        seed: of everything random.
        unlabelled: images without labels that scores, corrections and healing read instead of the data set's training
            images; None where those are to be read.
        dense: the detector that budgets speak of and that teaches; None takes the one that a step is given.
        start: what the run starts from, before any training of its own; None takes `dense`.
        folder: where files go; None writes none.
        compared: files of checkpoints with which the run compares its own, by the names of their rows.
        epoch_seconds: of the run's last training; None where nothing was trained yet.
        spent: seconds that the steps of the run have taken so far.
        first: no step has been done before this one.
        name_suffix: part of file names that tells a repeated step from the first ("-2").
        title: name of the step's row.
        round, rounds: where the step stands in a repetition, from 1.
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
        """What closed-form steps and healing read: the images without labels, else the data set."""
        return self.data if self.unlabelled is None else self.unlabelled

    def require_images(self, reader: str) -> DataSet:
        """What `image_source` gives, or the sentence that says who needs images.

        Raises:
            UserError: neither images nor a data set are given.
        """
        if self.image_source is None:
            raise UserError(f"{reader} reads images: give some (--images FOLDER) or a data set (--data data.yaml).")
        return self.image_source

    def require_data(self, reader: str) -> DataSet:
        """The data set, or the sentence that says who needs one.

        Raises:
            UserError: none is given.
        """
        if self.data is None:
            raise UserError(f"{reader} reads images: give the data set, for example --data data.yaml.")
        return self.data

    def known_to(self, detector: Named, *, otherwise: str = "") -> Context:
        """The same with its data set as the detector knows it, see `known_data`.

        Raises:
            UserError: the detector does not know the classes of the data set.
        """
        return self if self.data is None else replace(self, data=known_data(detector, self.data, otherwise=otherwise))

    def place(self, name: str) -> Path:
        """The folder for the files of one part of the work.

        Raises:
            UserError: the context has no folder.
        """
        if self.folder is None:
            raise UserError("This step writes files: give it a folder.")
        return self.folder / f"{name}{self.name_suffix}"
