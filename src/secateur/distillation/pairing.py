"""Which parts of a teacher answer to which of a student: anchors and channels; and whether the two fit at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.networks.classes import moved_class
from secateur.pruning.graph import Bools, ChannelGraph, trace
from secateur.pruning.plan import Plan


def check_pair(student: Detector, teacher: Detector, name: str = "") -> None:
    """Refuses a teacher whose outputs cannot be compared with the student's; widths, depths and anchors may differ.

    Args:
        name: of the teacher, for the message.

    Raises:
        UserError: naming what differs.
    """
    title = f"The teacher {name}" if name else "The teacher"
    if teacher.nc != student.nc:
        raise UserError(
            f"{title} knows {_count(teacher.nc, 'class', 'classes')} but the data set has {student.nc}; "
            "give --teacher a detector that was trained on these classes."
        )
    moved = moved_class(teacher.names, student.names)
    if moved is not None:
        label, place, other = moved
        raise UserError(
            f"{title} has class {label} as number {place}, the data set as number {other}; "
            "give --teacher a detector that was trained on the classes in this order."
        )
    if teacher.architecture.channels != student.architecture.channels:
        raise UserError(
            f"{title} reads images of {teacher.architecture.channels} channels and the student of "
            f"{student.architecture.channels}; give --teacher a detector for the same images."
        )
    if teacher.strides != student.strides:
        raise UserError(
            f"{title} predicts at strides {_list(teacher.strides)} and the student at {_list(student.strides)}; "
            "give --teacher a detector with the same levels."
        )
    if teacher.na != student.na:
        raise UserError(
            f"{title} has {_count(teacher.na, 'anchor', 'anchors')} a level and the student {student.na}; "
            "give --teacher a detector with as many."
        )


def anchor_order(student: Tensor, teacher: Tensor) -> Tensor:
    """For each of the student's anchors of a level [na, 2] the teacher's [na, 2] that is most like it: int64 [na].

    The closest pair, by the ratios of their sides, is taken first, then the closest of the rest, and so on.
    """
    distance = (student.log()[:, None] - teacher.log()[None]).square().sum(2).cpu()
    order = torch.empty(len(student), dtype=torch.int64)
    for _ in range(len(student)):
        row, column = divmod(int(distance.argmin()), len(teacher))
        order[row] = column
        distance[row], distance[:, column] = torch.inf, torch.inf
    return order.to(student.device)


def neck_channels(
    student: Detector, teacher: Detector, plan: Mapping[str, Any] | None, teacher_plan: Mapping[str, Any] | None = None
) -> tuple[Tensor, ...]:
    """For each level the channels of the teacher's head input that the student's head input consists of, int64 [c].

    Both plans speak of the dense network that the two came from, so a teacher that was cut itself works too.

    Args:
        plan: of the student's checkpoint; None: it has all channels of the teacher.
        teacher_plan: of the teacher's checkpoint; None: it is the dense network.

    Raises:
        UserError: the student was not cut from this teacher.
    """
    inputs = [f"model.{len(teacher.model) - 1}.m.{level}.weight" for level in range(teacher.nl)]
    widths = [int(teacher.get_parameter(name).shape[1]) for name in inputs]
    kept = [np.arange(width) for width in widths]
    if plan is not None:
        graph = trace(teacher)
        alive = _units_kept(graph, plan, teacher_plan)
        units = {axis.tensor: axis.units for axis in graph.axes if axis.dim == 1}
        for level, name in enumerate(inputs):
            if name in units:  # else none of its channels can be cut
                kept[level] = np.flatnonzero(alive[units[name]])
    for level, channels in enumerate(kept):
        width = int(student.head.m[level].get_parameter("weight").shape[1])
        if len(channels) != width:
            raise UserError(
                f"--distill features compares the channels that a cut kept, but the student has {width} channels at "
                f"level {level} where {len(channels)} of this teacher's {widths[level]} remain; give the detector that "
                "it was cut from as --teacher, or use another --distill."
            )
    return tuple(torch.from_numpy(channels) for channels in kept)


def _units_kept(graph: ChannelGraph, plan: Mapping[str, Any], base: Mapping[str, Any] | None) -> Bools:
    """Which units of the teacher live on in the student, [units + 1]; index -1 is "in no unit".

    A unit lives when any of its layers keeps it: a block that was taken out of a residual chain keeps nothing itself.
    """
    before = Plan.from_dict(dict(base)) if base else None
    present = {layer.name: layer.kept for layer in before.layers} if before else {}
    alive, planned = np.zeros(graph.units + 1, dtype=bool), np.zeros(graph.units + 1, dtype=bool)
    for layer in Plan.from_dict(dict(plan)).layers:
        # The plan speaks of the dense network, in which blocks and channels may have other numbers than in the teacher.
        name = before.removal.renamed(layer.name) if before else layer.name
        channels = present.get(layer.name, tuple(range(layer.total)))
        units = graph.emitted.get(name or "")
        if units is None or len(units) != len(channels):
            continue  # of a block that the teacher does not have; the widths tell whether that matters
        alive[units[np.isin(channels, layer.kept)]] = True
        planned[units] = True
    alive |= ~planned
    alive[-1] = True
    return alive


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _list(strides: tuple[float, ...]) -> str:
    return ", ".join(f"{stride:g}" for stride in strides)
