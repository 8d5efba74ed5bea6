"""Selection of the teacher of a training."""

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

    It is `--teacher` if set; otherwise the start itself, if it is dense and its weights will be zeroed (`zeroing`);
    otherwise the file recorded by the last pruning in its history.

    Raises:
        UserError: no file is recorded, or it does not exist.
    """
    if not settings.teacher and zeroing and start.plan is None and not start.masks:
        return start
    return as_taught(load_checkpoint(settings.teacher or teacher_file(start)), start)


def teacher_file(start: Checkpoint) -> str:
    """The file of the network that a checkpoint was pruned from, from its history.

    Raises:
        UserError: no file is recorded, or it does not exist.
    """
    files = [entry.settings.get("weights") for entry in start.history if entry.verb == "prune"]
    if not files or not files[-1]:
        raise UserError(
            "The checkpoint does not record which network it was pruned from. Set that network with --teacher."
        )
    if not Path(files[-1]).is_file():
        raise UserError(f"The network {files[-1]} that was pruned no longer exists. Set it with --teacher.")
    LOG.info("Teacher: %s", files[-1])
    return str(files[-1])


def note_other_names(student: Checkpoint, teacher: Checkpoint) -> None:
    """Warns if a teacher with the same number of classes uses other names."""
    if teacher.nc == student.nc and not knows_classes(teacher.names, student.names):
        LOG.warning(
            "The class names of the teacher (%s) differ from those of the data set. Check that the classes match.",
            ", ".join(teacher.names.values()),
        )
