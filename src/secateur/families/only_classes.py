"""Reduces a detector to some of its classes by removing the outputs for the others (`--classes`)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from secateur.evaluation.cost import count
from secateur.families.family import family_of
from secateur.networks.checkpoint import NARROWED, Checkpoint, HistoryEntry
from secateur.networks.classes import plain, some_classes
from secateur.sizes import ImageSize, in_words

LOG = logging.getLogger("secateur")


@dataclass(frozen=True)
class ClassesLeftOut:
    """Cost of the removed outputs.

    Attributes:
        kept: names of the kept classes.
        of: number of classes before.
        parameters, flops: before and after.
        image_size: image size in pixels for the FLOPs.
    """

    kept: tuple[str, ...]
    of: int
    parameters: tuple[int, int]
    flops: tuple[int, int]
    image_size: ImageSize

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        left = self.of - len(self.kept)
        others = "class" if left == 1 else f"{left} classes"
        shares = [f"{1 - after / max(before, 1):.1%}" for before, after in (self.flops, self.parameters)]
        before, after = (f"{flops / 1e9:.3f}" for flops in self.flops)
        return (
            f"classes: {', '.join(self.kept)}; the outputs of the other {others} had {shares[0]} of the FLOPs "
            f"({before} -> {after} GFLOPs at {in_words(self.image_size)} px) and {shares[1]} of the parameters. Budget "
            "shares refer to the remaining network."
        )


def left_out(whole: Checkpoint, narrowed: Checkpoint, image_size: ImageSize) -> ClassesLeftOut:
    """Cost of the outputs that were removed."""
    before, after = (count(checkpoint.build(), image_size) for checkpoint in (whole, narrowed))
    names = tuple(narrowed.names.values())
    costs = (before.parameters, after.parameters), (before.flops, after.flops)
    return ClassesLeftOut(names, whole.nc, *costs, image_size)


def only_classes(checkpoint: Checkpoint, classes: Sequence[str | int]) -> Checkpoint:
    """The checkpoint with the outputs of only these classes, in this order; its outputs for them do not change.

    The classes are recorded in its history, so that data sets and teachers with more classes are reduced in the same
    way.

    Args:
        classes: names or ids; one string may hold several, separated by commas.

    Raises:
        UserError: the family has no `pick_classes`, a class does not exist or is listed twice, or all classes are
            listed.
    """
    family = family_of(checkpoint)
    family.require("pick_classes", "narrowed to some of its classes (--classes)", "omit --classes")
    ids = some_classes(classes, checkpoint.names)
    narrowed = family.pick_classes(checkpoint, ids)
    settings = {"classes": list(narrowed.names.values()), "of": checkpoint.nc}
    return replace(narrowed, history=(*checkpoint.history, HistoryEntry(NARROWED, settings)))


def as_taught(teacher: Checkpoint, student: Checkpoint) -> Checkpoint:
    """The teacher with only the classes of its student, if the student was reduced to some of the classes of the
    teacher.

    Any other teacher is returned unchanged.
    """
    known = {plain(name): number for number, name in teacher.names.items()}
    wanted = [known.get(plain(name)) for name in student.names.values()]
    classes = [number for number in wanted if number is not None]
    if not student.narrowed or student.nc >= teacher.nc or len(classes) < student.nc or len(known) < teacher.nc:
        return teacher
    if not family_of(teacher).knows("pick_classes"):
        return teacher
    LOG.info("The teacher uses only %d of its %d classes, those of the student", student.nc, teacher.nc)
    return only_classes(teacher, classes)
