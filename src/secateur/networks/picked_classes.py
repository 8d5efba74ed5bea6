"""A checkpoint with the outputs of only some of its classes, in any order; all other tensors are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.fresh_head import head_tensors


def picked(checkpoint: Checkpoint, classes: tuple[int, ...], *, others: int = 0) -> Checkpoint:
    """The checkpoint with the outputs of only these classes, in this order.

    Args:
        classes: ids, without duplicates.
        others: number of entries before those of the classes: a side with groups * (others + nc) entries keeps the
            others in every group.

    Raises:
        UserError: a side that depends on the number of classes has an unexpected size.
    """
    architecture, nc = checkpoint.architecture, checkpoint.nc
    rows = torch.tensor([*range(others), *(others + number for number in classes)])
    sides = [
        (name, place, length)
        for name, lengths in head_tensors(architecture).items()
        for place, length in enumerate(lengths)
        if length is not None
    ]
    for name, _, length in sides:
        if length % (others + nc) or (not others and length != nc):
            raise UserError(
                f"{name} has {length} entries for {nc} classes, so the entries of a class are unknown. Implement "
                f"`pick_classes` in the family '{architecture.kind}' (docs/extending.md)."
            )

    def of_classes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = dict(tensors)
        for name, place, _ in sides:
            if name in found:
                groups = found[name].unflatten(place, (-1, others + nc))
                found[name] = groups.index_select(place + 1, rows).flatten(place, place + 1).contiguous()
        return found

    return replace(
        checkpoint,
        architecture=architecture.with_classes(len(classes)),
        tensors=of_classes(checkpoint.tensors),
        masks=of_classes(checkpoint.masks),
        names={place: checkpoint.names[number] for place, number in enumerate(classes)},
    )
