"""Does the steps of a run one after the other; a part that is done is not done again, and all end in one table."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.data.images import check_image_channels
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.family import family_of
from secateur.networks.checkpoint import Checkpoint
from secateur.runs.progress import Progress
from secateur.runs.recipes.resolve import PlannedStep
from secateur.runs.rows import RunRow, SavedRows, last_stage, note_latency
from secateur.steps.step import Made, Outcome
from secateur.terminal import stage
from secateur.training.distributed import rank_and_world

LOG = logging.getLogger("secateur")


@dataclass(frozen=True)
class PipelineResult:
    """What a pipeline ends with: rows of its table, the last detector, what steps noted by name, and files by row."""

    rows: list[RunRow]
    checkpoint: Checkpoint
    notes: dict[str, Any]
    files: dict[str, Path]

    @property
    def last(self) -> RunRow:
        """The row of `checkpoint`."""
        return last_stage(self.rows)


def one_process(command: str) -> None:
    """Refuses to start under torchrun where only one process can work.

    Raises:
        UserError: there are several processes.
    """
    if rank_and_world()[1] > 1:
        raise UserError(
            f"secateur {command} works in one process: start it without torchrun; train, sparsify, finetune, heal "
            "and prune --heal can use several."
        )


def check_steps(steps: Sequence[PlannedStep], start: Checkpoint, context: Context) -> None:
    """Looks for what would stop the run after hours.

    Raises:
        UserError: as a step says it.
    """
    if context.image_source is not None:
        check_image_channels(start.architecture.channels)
    if context.data is not None and context.data.labelled:
        family_of(start).require("evaluate", "evaluated", "give images without labels (--images) and no --data")
    for planned in steps:
        planned.step.check(start, _placed(context, planned, first=planned is steps[0]))


def do_steps(
    steps: Sequence[PlannedStep],
    start: Checkpoint,
    context: Context,
    progress: Progress,
    splits: Sequence[str] = ("val", "test"),
    first: str = "dense",
) -> PipelineResult:
    """All steps in order; what they make is saved and measured, and `progress` remembers what is done.

    A first step that makes the dense detector (a training) stands for the first row; otherwise what the run starts
    from is measured first.

    Args:
        start: the detector that the first step is given.
        splits: on which every row is measured, as far as the data set has them.
        first: title of the row of what is started from.
    """
    alone, folder = splits == ("val",), progress.folder
    rows = SavedRows(progress, splits, (lambda name: folder) if alone else lambda name: folder / "evaluation" / name)
    context = dataclasses.replace(context, start=start, folder=folder)
    current = dense = start
    if not makes_dense(steps):
        given = Outcome((Made(start, "dense", first, plots=not alone),))
        current = dense = rows.after("start", context, lambda: given, start)
    for number, planned in enumerate(steps):
        here = dataclasses.replace(context, dense=dense, compared=rows.compared)
        here = dataclasses.replace(here, epoch_seconds=rows.epoch_seconds, spent=rows.spent)
        here = _placed(here, planned, first=not rows.rows)
        name, rest = planned.step.describe(), [later.step.describe() for later in steps[number + 1 :]]
        work, together = functools.partial(planned.step.run, current, here), planned.step.together
        with stage(name, number + 1, len(steps), rest) as entered:
            LOG.info("%s", entered.line())
            current = rows.after(planned.step.verb, here, work, current, together=together)
        if current.single_cls:
            context = context.known_to(current)
        if number == 0 and makes_dense(steps):
            dense = current
    note_latency(rows.rows, rows.notes.get("latency"))
    return PipelineResult(rows.rows, current, rows.notes, rows.files)


def makes_dense(steps: Sequence[PlannedStep]) -> bool:
    """Whether the first step is the training of the detector that everything is compared with."""
    return bool(steps) and steps[0].step.makes_dense


def _placed(context: Context, planned: PlannedStep, *, first: bool) -> Context:
    return dataclasses.replace(
        context,
        name_suffix=planned.name_suffix,
        title=planned.title,
        round=planned.round,
        rounds=planned.rounds,
        first=first,
    )
