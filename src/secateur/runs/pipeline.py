"""Does the steps of a run one after the other; a part that is done is not done again, and all end in one table."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.data.images import check_image_channels
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.family import family_of
from secateur.networks.checkpoint import Checkpoint
from secateur.runs.progress import LOG_FILE, Progress
from secateur.runs.recipes.resolve import PlannedStep
from secateur.runs.rows import Row, SavedRows, last_stage, note_latency
from secateur.training.distributed import rank_and_world
from secateur.training.results import KEPT

LOG = logging.getLogger("secateur")


@dataclass(frozen=True)
class Result:
    """What a pipeline ends with: the rows of its table, the last detector, and what its parts noted."""

    rows: list[Row]
    checkpoint: Checkpoint
    parts: dict[str, Any]

    @property
    def last(self) -> Row:
        """The row of `checkpoint`."""
        return last_stage(self.rows)


def one_process(command: str) -> None:
    """Refuses to start under torchrun where only one process can work.

    Raises:
        UserError: there are several processes.
    """
    if rank_and_world()[1] > 1:
        raise UserError(
            f"secateur {command} works in one process: start it without torchrun; train, sparsify and finetune can "
            "use several."
        )


def check_steps(steps: Sequence[PlannedStep], start: Checkpoint, context: Context) -> None:
    """Looks for what would stop the run after hours.

    Raises:
        UserError: as a step says it.
    """
    if context.pictures is not None:
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
) -> Result:
    """All steps in order, with `progress` as their memory.

    A first step that makes the dense detector (a training) stands for the first row; otherwise what the run starts
    from is measured first.

    Args:
        start: the detector that the first step is given.
        splits: on which every row is measured, as far as the data set has them.
        first: title of the row of what is started from.
    """
    folder = progress.folder
    alone = splits == ("val",)
    rows = SavedRows(folder, splits, (lambda name: folder) if alone else lambda name: folder / "evaluation" / name)
    context = dataclasses.replace(context, start=start, folder=folder, memory=progress, rows=rows)
    current = dense = start
    if not makes_dense(steps):
        current = dense = rows.add(context, "dense", first, lambda: start, plots=not alone)
    for number, planned in enumerate(steps):
        LOG.info("[%d/%d] %s", number + 1, len(steps), planned.step.describe())
        here = _placed(dataclasses.replace(context, dense=dense), planned, first=not rows.rows)
        current = planned.step.run(current, here)
        if current.single_cls:
            context = context.known_to(current)
        if number == 0 and makes_dense(steps):
            dense = current
    note_latency(rows.rows, progress.parts.get("latency"))
    return Result(rows.rows, current, progress.parts)


def makes_dense(steps: Sequence[PlannedStep]) -> bool:
    """Whether the first step is the training of the detector that everything is compared with."""
    return bool(steps) and steps[0].step.makes_dense


def _placed(context: Context, planned: PlannedStep, *, first: bool) -> Context:
    return dataclasses.replace(
        context,
        mark=planned.mark,
        title=planned.title,
        round=planned.round,
        rounds=planned.rounds,
        first=first,
    )


class _LogFile(logging.FileHandler):
    """A log that cannot be written, on a full disk, stops nothing: what is worth keeping says so itself."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """No traceback on the terminal."""


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """What is said while the run goes on is also written into its folder, a resumed run behind what was there."""
    handler = _LogFile(folder / LOG_FILE, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    loggers = (LOG, logging.getLogger(KEPT))
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
