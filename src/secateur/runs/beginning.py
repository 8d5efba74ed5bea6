"""What a training or a run begins with: a checkpoint, and the data set as it knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.data.config import DataConfig
from secateur.families.context import as_one_class, known_data
from secateur.families.loading import load_checkpoint
from secateur.families.starting import starting_point
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
    data: DataConfig
    trained: bool


def beginning(
    weights: str,
    cfg: str,
    data: DataConfig,
    *,
    seed: int = 0,
    hyp: Mapping[str, Any] | None = None,
    single_cls: bool = False,
    keep_one_class: bool = True,
) -> Beginning:
    """The starting point (`families.starting.starting_point`) for a data set.

    Args:
        hyp: hyper-parameters by name, of which the family of a fresh network may read some.
        single_cls: take all classes as one.
        keep_one_class: so do weights that were trained so; otherwise they get a head for the classes of the data set.

    Raises:
        UserError: as `starting_point` raises it.
    """
    known = load_checkpoint(weights, cfg) if weights else None
    one_class = known is not None and known.single_cls and (single_cls or keep_one_class)
    if single_cls:
        data = as_one_class(data)
    elif known is not None and one_class:
        data = known_data(known, data, weights)
    names = known.names if known is not None and one_class else data.names
    start = starting_point(known or weights, cfg, names, seed, hyp)
    return Beginning(start, data, known is not None and knows_classes(known.names, names))
