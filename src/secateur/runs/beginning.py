"""What a training or a run begins with: a checkpoint, and the data set as it knows it."""

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
    """What is trained first, and on what.

    Attributes:
        start: the checkpoint.
        data: the data set; all its objects are of one class where `start` has one class for all.
        trained: the weights know the classes of the data set, in its order.
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
        data_file: the data set, which the family of the starting point reads.
        hyp: hyper-parameters by name, of which the family of a fresh network may read some.
        single_cls: take all classes as one.
        keep_one_class: so do weights that were trained so, and those that were narrowed to some classes keep these;
            otherwise they get a head for the classes of the data set.
        classes: of the weights, by name or id, to which they are narrowed first (`--classes`); () takes all.

    Raises:
        UserError: as `starting_point` raises it, or the file is no data set.
    """
    known = load_checkpoint(weights, cfg) if weights else None
    if classes:
        if known is None:
            raise UserError("--classes narrows a trained detector to some of its classes: give it as --weights.")
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
