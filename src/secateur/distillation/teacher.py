"""Who teaches a training, and the loss terms that come of it."""

from __future__ import annotations

import logging
from pathlib import Path

from secateur.distillation.imitate import Imitate
from secateur.distillation.losses import DISTILLATIONS
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.classes import knows_classes
from secateur.training.hooks import Hook
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings

LOG = logging.getLogger("secateur")


def find_teacher(settings: DistillSettings, start: Checkpoint, *, zeroing: bool = False) -> Checkpoint:
    """The teacher of a training that starts from `start`.

    `--teacher`; or the start itself if it is dense and its weights are to be zeroed (`zeroing`); or the file that the
    last pruning in its history noted.

    Raises:
        UserError: no file is known, or it is not there.
    """
    if settings.teacher:
        return load_checkpoint(settings.teacher)
    if zeroing and start.plan is None and not start.masks:
        return start
    return load_checkpoint(teacher_file(start))


def teacher_file(start: Checkpoint) -> str:
    """The file of the detector that a checkpoint was pruned from, as its history notes it.

    Raises:
        UserError: no file is noted, or it is not there.
    """
    files = [stage.settings.get("weights") for stage in start.history if stage.verb == "prune"]
    if not files or not files[-1]:
        raise UserError("The checkpoint does not say which detector it was pruned from; give that one as --teacher.")
    if not Path(files[-1]).is_file():
        raise UserError(f"The detector {files[-1]} that was pruned is not there any more; give it as --teacher.")
    LOG.info("Teacher: %s", files[-1])
    return str(files[-1])


def check_distillation(settings: DistillSettings) -> None:
    """Looks up the names of the methods.

    Raises:
        UserError: one is unknown.
    """
    for name in settings.methods:
        DISTILLATIONS[name]


def distillation(
    settings: DistillSettings, student: Detector, teacher: Checkpoint, start: Checkpoint, train: TrainSettings
) -> tuple[list[Term], list[Hook]]:
    """Loss terms and hooks for `fit`; none when nothing is to be imitated.

    Args:
        student: the detector that `fit` will train, made from `start`.
        train: the training's settings; hyp and the image size give the gains.

    Raises:
        UserError: an unknown method, or a teacher that does not fit the student.
    """
    if not settings.distill:
        return [], []
    if teacher.nc == student.nc and not knows_classes(teacher.names, student.names):
        LOG.warning(
            "The teacher calls its classes %s: are they those of the data set?", ", ".join(teacher.names.values())
        )
    imitate = Imitate(
        settings,
        student,
        teacher.build(),
        train.hyp,
        train.image_size,
        name=settings.teacher,
        plan=start.plan,
        teacher_plan=teacher.plan,
    )
    return [imitate], [imitate]
