"""The starting point of a training or a run: a checkpoint, and the data set with matching classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.errors import UserError
from secateur.families.context import as_one_class, known_data, with_its_classes
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import only_classes
from secateur.families.reading import DataSet
from secateur.families.starting import family_to_start, starting_point
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.classes import knows_classes


@dataclass(frozen=True)
class Beginning:
    """The initial checkpoint and its data set.

    Attributes:
        start: the checkpoint.
        data: the data set; all objects have one class if `start` was trained with one class for all.
        trained: whether the weights have the classes of the data set, in the same order.
    """

    start: Checkpoint
    data: DataSet
    trained: bool


def beginning(
    weights: str,
    cfg: str,
    data_file: str,
    *,
    seed: int = 0,
    hyp: Mapping[str, Any] | None = None,
    single_cls: bool = False,
    keep_one_class: bool = True,
    classes: Sequence[str | int] = (),
) -> Beginning:
    """The starting point (`families.starting.starting_point`) for a data set.

    Args:
        weights: checkpoint or official name; "" starts from scratch.
        cfg: model to train from scratch.
        data_file: the data set, in a format that the starting point's family reads.
        seed: seed of fresh weights.
        hyp: hyper-parameters by name; the family of a fresh network may use some of them.
        single_cls: treat all classes as one.
        keep_one_class: whether weights trained with one class for all, or narrowed to some classes, keep their classes;
            otherwise they get a new head for the classes of the data set.
        classes: names or ids to which the weights are narrowed first (`--classes`); () keeps all.

    Raises:
        UserError: see `starting_point`, or the file is not a data set.
    """
    known = load_checkpoint(weights, cfg) if weights else None
    if classes:
        if known is None:
            raise UserError(
                "--classes narrows a trained detector to some of its classes. Give the detector with --weights."
            )
        known = only_classes(known, classes)
    data: DataSet = family_to_start(known, cfg).open_data(data_file)
    one_class = known is not None and known.single_cls and (single_cls or keep_one_class)
    if single_cls:
        data = as_one_class(data)
    elif known is not None and (one_class or classes):
        data = known_data(known, data, weights)
    elif known is not None and keep_one_class:
        data = with_its_classes(known, data, weights)
    names = known.names if known is not None and one_class else data.names
    start = starting_point(known or "", cfg, names, seed, hyp)
    return Beginning(start, data, known is not None and knows_classes(known.names, names))
