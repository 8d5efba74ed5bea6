"""A detector for some of the classes that its weights know: the outputs for the others are removed (`--classes`)."""

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
    """What the outputs for other classes were.

    Attributes:
        kept: names of the classes that stay.
        of: number of classes before.
        parameters, flops: before, and after.
        image_size: px of the image for which FLOPs are counted.
    """

    kept: tuple[str, ...]
    of: int
    parameters: tuple[int, int]
    flops: tuple[int, int]
    image_size: ImageSize

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        left = self.of - len(self.kept)
        others = "class" if left == 1 else f"{left} classes"
        shares = [f"{1 - after / max(before, 1):.1%}" for before, after in (self.flops, self.parameters)]
        before, after = (f"{flops / 1e9:.3f}" for flops in self.flops)
        return (
            f"classes: {', '.join(self.kept)}; the outputs of the other {others} were {shares[0]} of the FLOPs "
            f"({before} -> {after} GFLOPs at {in_words(self.image_size)} px) and {shares[1]} of the parameters. Shares "
            "of budgets are of the rest."
        )


def left_out(whole: Checkpoint, narrowed: Checkpoint, image_size: ImageSize) -> ClassesLeftOut:
    """What went with the outputs for other classes."""
    before, after = (count(checkpoint.build(), image_size) for checkpoint in (whole, narrowed))
    names = tuple(narrowed.names.values())
    costs = (before.parameters, after.parameters), (before.flops, after.flops)
    return ClassesLeftOut(names, whole.nc, *costs, image_size)


def only_classes(checkpoint: Checkpoint, classes: Sequence[str | int]) -> Checkpoint:
    """The checkpoint with the outputs of only these classes, in this order; its answers for them do not change.

    Its history notes the classes, so that data sets and teachers with more classes are read as it knows them.

    Args:
        classes: names or ids; one word may hold several, separated by commas.

    Raises:
        UserError: the family has no `pick_classes`, there is no such class, one is named twice, or all are named.
    """
    family = family_of(checkpoint)
    family.require("pick_classes", "narrowed to some of its classes (--classes)", "leave --classes out")
    ids = some_classes(classes, checkpoint.names)
    narrowed = family.pick_classes(checkpoint, ids)
    settings = {"classes": list(narrowed.names.values()), "of": checkpoint.nc}
    return replace(narrowed, history=(*checkpoint.history, HistoryEntry(NARROWED, settings)))


def as_taught(teacher: Checkpoint, student: Checkpoint) -> Checkpoint:
    """The teacher with only the classes of its student, where the student was narrowed to some of the teacher's.

    Any other teacher stays as it is.
    """
    known = {plain(name): number for number, name in teacher.names.items()}
    wanted = [known.get(plain(name)) for name in student.names.values()]
    classes = [number for number in wanted if number is not None]
    if not student.narrowed or student.nc >= teacher.nc or len(classes) < student.nc or len(known) < teacher.nc:
        return teacher
    if not family_of(teacher).knows("pick_classes"):
        return teacher
    LOG.info("The teacher answers for the student's %d of its %d classes", student.nc, teacher.nc)
    return only_classes(teacher, classes)
