"""Checks whether a teacher matches a student, and which channels of the teacher correspond to those of the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.networks.architecture import Architecture
from secateur.networks.classes import moved_class
from secateur.pruning.graph import Bools, ChannelGraph, trace
from secateur.pruning.plan import Plan


class Described(Protocol):
    """A checkpoint, or a network with an architecture."""

    @property
    def architecture(self) -> Architecture: ...
    @property
    def nc(self) -> int: ...
    @property
    def names(self) -> dict[int, str]: ...
    @property
    def strides(self) -> tuple[float, ...]: ...


def check_pair(student: Described, teacher: Described, name: str = "") -> None:
    """Checks that the outputs of the teacher can be compared with those of the student; widths and depths may differ.

    Args:
        name: name of the teacher, for the message.

    Raises:
        UserError: they cannot; the message names the difference.
    """
    title = f"The teacher {name}" if name else "The teacher"
    if teacher.architecture.kind != student.architecture.kind:
        raise UserError(
            f"{title} is of the family '{teacher.architecture.kind}', but the student is of "
            f"'{student.architecture.kind}'. Set --teacher to the network that the student was cut from."
        )
    if teacher.nc != student.nc:
        raise UserError(
            f"{title} has {teacher.nc} {'class' if teacher.nc == 1 else 'classes'}, but the data set has "
            f"{student.nc}. Set --teacher to a network that was trained on these classes."
        )
    moved = moved_class(teacher.names, student.names)
    if moved is not None:
        label, place, other = moved
        raise UserError(
            f"{title} has class {label} as number {place}, but the data set has it as number {other}. "
            "Set --teacher to a network that was trained on the classes in this order."
        )
    if teacher.architecture.channels != student.architecture.channels:
        raise UserError(
            f"{title} reads images of {teacher.architecture.channels} channels, but the student of "
            f"{student.architecture.channels}. Set --teacher to a network for the same images."
        )
    if teacher.strides != student.strides:
        raise UserError(
            f"{title} predicts at strides {_list(teacher.strides)}, but the student at {_list(student.strides)}. "
            "Set --teacher to a network with the same levels."
        )


def fed_channels(
    student: nn.Module,
    teacher: nn.Module,
    heads: tuple[Sequence[str], Sequence[str]],
    plan: Mapping[str, Any] | None,
    teacher_plan: Mapping[str, Any] | None = None,
) -> tuple[Tensor, ...]:
    """For each layer of the head, the input channels of the teacher that correspond to those of the student: int64 [c].

    Both plans refer to the dense network that both were cut from, so a teacher that was cut itself is supported.

    Args:
        heads: names of the layers (convolutions, linear) of the heads of student and teacher, in the same order.
        plan: plan in the checkpoint of the student; None: it has all channels of the teacher.
        teacher_plan: plan in the checkpoint of the teacher; None: it is the dense network.

    Raises:
        UserError: the student was not cut from this teacher.
    """
    inputs = [f"{layer}.weight" for layer in heads[1]]
    widths = [int(teacher.get_parameter(name).shape[1]) for name in inputs]
    kept = [np.arange(width) for width in widths]
    if plan is not None:
        graph = trace(teacher)
        alive = _units_kept(graph, plan, teacher_plan)
        units = {axis.tensor: axis.units for axis in graph.axes if axis.dim == 1}
        for level, name in enumerate(inputs):
            if name in units:  # otherwise none of its channels can be cut
                kept[level] = np.flatnonzero(alive[units[name]])
    for layer, channels, whole in zip(heads[0], kept, widths, strict=True):
        width = int(student.get_parameter(f"{layer}.weight").shape[1])
        if len(channels) != width:
            raise UserError(
                f"--distill features compares the channels that a cut kept, but the student has {width} channels "
                f"before {layer}, while {len(channels)} of {whole} of this teacher remain. Set --teacher to the "
                "network that it was cut from, or use another --distill."
            )
    return tuple(torch.from_numpy(channels) for channels in kept)


def _units_kept(graph: ChannelGraph, plan: Mapping[str, Any], base: Mapping[str, Any] | None) -> Bools:
    """Which units of the teacher exist in the student, [units + 1]; index -1 is "in no unit".

    A unit exists if any of its layers keeps it: a block removed from a residual chain keeps nothing itself.
    """
    before = Plan.from_dict(dict(base)) if base else None
    present = {layer.name: layer.kept for layer in before.layers} if before else {}
    alive, planned = np.zeros(graph.units + 1, dtype=bool), np.zeros(graph.units + 1, dtype=bool)
    for layer in Plan.from_dict(dict(plan)).layers:
        # The plan refers to the dense network, where blocks and channels may have other numbers than in the teacher.
        name = before.removal.renamed(layer.name) if before else layer.name
        channels = present.get(layer.name, tuple(range(layer.total)))
        units = graph.emitted.get(name or "")
        if units is None or len(units) != len(channels):
            continue  # a block that the teacher does not have; the widths are checked later
        alive[units[np.isin(channels, layer.kept)]] = True
        planned[units] = True
    alive |= ~planned
    alive[-1] = True
    return alive


def _list(strides: tuple[float, ...]) -> str:
    return ", ".join(f"{stride:g}" for stride in strides)
