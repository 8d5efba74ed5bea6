"""Runs the steps of a run in order, skips completed parts, and collects one table."""

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
    """The result of a pipeline: table rows, the final detector, notes of steps by name, and checkpoint files by row."""

    rows: list[RunRow]
    checkpoint: Checkpoint
    notes: dict[str, Any]
    files: dict[str, Path]

    @property
    def last(self) -> RunRow:
        """The row of `checkpoint`."""
        return last_stage(self.rows)


def one_process(command: str) -> None:
    """Rejects torchrun for commands that run in one process only.

    Raises:
        UserError: there are several processes.
    """
    if rank_and_world()[1] > 1:
        raise UserError(
            f"secateur {command} runs in one process. Start it without torchrun; train, sparsify, finetune, "
            "heal and prune --heal support several processes."
        )


def check_steps(steps: Sequence[PlannedStep], start: Checkpoint, context: Context) -> None:
    """Checks everything that could otherwise fail after hours.

    Raises:
        UserError: a step rejects its input.
    """
    if context.image_source is not None:
        check_image_channels(start.architecture.channels)
    if context.data is not None and context.data.labelled:
        family_of(start).require("evaluate", "evaluated", "give unlabelled images (--images) and omit --data")
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
    """Runs all steps in order. Saves and evaluates their results; `progress` records completed parts.

    If the first step makes the dense detector (a training), its result is the first row; otherwise the starting
    checkpoint is evaluated first.

    Args:
        steps: the planned steps.
        start: input of the first step.
        context: data, device and folder of the run.
        progress: the resumable record.
        splits: splits on which every row is evaluated, if the data set has them.
        first: title of the row of the starting checkpoint.
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
    """Whether the first step trains the dense detector, the reference of the run."""
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
