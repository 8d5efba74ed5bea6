"""Who teaches a training."""

from __future__ import annotations

import logging
from pathlib import Path

from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import as_taught
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.classes import knows_classes

LOG = logging.getLogger("secateur")


def find_teacher(settings: DistillSettings, start: Checkpoint, *, zeroing: bool = False) -> Checkpoint:
    """The teacher of a training that starts from `start`.

    `--teacher`; or the start itself if it is dense and its weights are to be zeroed (`zeroing`); or the file that the
    last pruning in its history noted.

    Raises:
        UserError: no file is known, or it is not there.
    """
    if not settings.teacher and zeroing and start.plan is None and not start.masks:
        return start
    return as_taught(load_checkpoint(settings.teacher or teacher_file(start)), start)


def teacher_file(start: Checkpoint) -> str:
    """The file of the network that a checkpoint was pruned from, as its history notes it.

    Raises:
        UserError: no file is noted, or it is not there.
    """
    files = [entry.settings.get("weights") for entry in start.history if entry.verb == "prune"]
    if not files or not files[-1]:
        raise UserError("The checkpoint does not say which network it was pruned from; give that one as --teacher.")
    if not Path(files[-1]).is_file():
        raise UserError(f"The network {files[-1]} that was pruned is not there any more; give it as --teacher.")
    LOG.info("Teacher: %s", files[-1])
    return str(files[-1])


def note_other_names(student: Checkpoint, teacher: Checkpoint) -> None:
    """Warns where a teacher of as many classes calls them otherwise."""
    if teacher.nc == student.nc and not knows_classes(teacher.names, student.names):
        LOG.warning(
            "The teacher calls its classes %s: are they those of the data set?", ", ".join(teacher.names.values())
        )
