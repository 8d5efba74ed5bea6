"""Output of a training: results.csv with the columns of YOLOv5, TensorBoard, the progress bar and one line per
epoch."""

from __future__ import annotations

import csv
import io
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import TaskID
from torch import Tensor

from secateur.errors import UserError
from secateur.files import write_text
from secateur.scores import Scores
from secateur.terminal import bar

EpochRow = dict[str, float]
COLUMN_GROUPS = ("epoch", "train", "metrics", "val", "x")

RESULTS = "results.csv"
KEPT = "secateur.kept"
"""Logger whose handlers write messages of a training to the log file of its run."""


class HeldOutLoss(Scores):
    """Scores of a training without labels: its loss on images that it does not train on."""

    def __init__(self, loss: float) -> None:
        name = "held-out loss"
        super().__init__(
            name,
            {name: loss},
            higher_is_better=False,
            columns={name: "val/loss"},
            titles={name: "held-out"},
            digits=4,
        )


class RunLog:
    """Collects the figures of an epoch for results.csv and the trackers; inactive on other processes than the main
    one."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.is_main = accelerator.is_main_process
        self.rows: list[EpochRow] = []
        self._scalars: EpochRow = {}
        self._step = 0
        if accelerator.log_with and self.is_main:
            accelerator.init_trackers("tensorboard")

    def message(self, text: str) -> None:
        """Prints one line for the user, and writes it to the log file of the run, if there is one."""
        if self.is_main:
            print(text, file=sys.stderr, flush=True)
        # The line is printed directly, independent of the log level, so the logger must not print it again.
        kept = logging.getLogger(KEPT)
        for handler in kept.handlers:
            handler.handle(kept.makeRecord(KEPT, logging.INFO, "", 0, text, (), None))

    def log(self, name: str, value: float) -> None:
        """Records a figure of this epoch for the trackers."""
        self._scalars[name] = float(value)

    def histogram(self, name: str, values: Tensor) -> None:
        """Records a distribution of values, any shape, of this epoch for TensorBoard, if it is used."""
        if not self.is_main:
            return
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.tracker.add_histogram(name, values.detach().float().cpu(), self._step)

    def begin(self, epoch: int) -> None:
        """Starts an epoch; figures that follow belong to it."""
        self._step, self._scalars = epoch, {}

    def end(self, row: EpochRow) -> None:
        """Ends the epoch: writes its row to results.csv and all figures to the trackers."""
        self.rows.append(row)
        if not self.is_main:
            return
        self.write_results()
        if self.accelerator.trackers:
            self.accelerator.log({k: v for k, v in row.items() if k != "epoch"} | self._scalars, step=self._step)

    def restore(self, rows: Any) -> None:
        """Restores the rows of a resumed training.

        Raises:
            ValueError: the data is invalid.
        """
        self.rows = [dict(row) for row in rows]
        for name, value in (cell for row in self.rows for cell in row.items()):
            if name.split("/")[0] not in COLUMN_GROUPS or not isinstance(value, int | float):
                raise ValueError(f"column {name}")

    def write_results(self) -> None:
        """Writes all rows, so that a resumed training repeats none."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        columns = sorted(names, key=lambda name: COLUMN_GROUPS.index(name.split("/")[0]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: int(v) if k == "epoch" else f"{v:.5g}" for k, v in row.items()})
        write_text(self.folder / RESULTS, text.getvalue())

    def close(self) -> None:
        """Flushes and closes the trackers; the process group stays open."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.trackers = []


def epochs_in(folder: Path) -> int:
    """Number of epochs in the results.csv of a training; 0 if there is none."""
    file = folder / RESULTS
    return max(len(file.read_text(encoding="utf-8").splitlines()) - 1, 0) if file.is_file() else 0


def make_row(epoch: int, parts: Mapping[str, float], scores: Scores | None, rates: list[float]) -> EpochRow:
    """One epoch under the names of its columns; without an evaluation, it has no scores."""
    row: EpochRow = {"epoch": epoch} | {f"train/{name}_loss": value for name, value in parts.items()}
    row |= scores.to_columns() if scores is not None else {}
    return row | {f"x/lr{i}": rate for i, rate in enumerate(rates)}


class EpochBar:
    """Progress bar of one epoch, shown only on the terminal of the main process."""

    def __init__(self, log: RunLog, title: str, total: int, done: int) -> None:
        self.title = title
        self.progress = bar("epoch {task.description}", shown=log.is_main, refresh=4)
        self.task: TaskID = self.progress.add_task(self.title, total=total, completed=done)

    def __enter__(self) -> EpochBar:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def advance(self, meter: LossMeter) -> None:
        """Advances by one batch and shows the mean losses of the epoch so far."""
        if self.progress.drawn and meter.batches % 10 == 1:  # reading the losses synchronises with the device
            text = "  ".join(f"{name} {value:.4f}" for name, value in meter.means().items())
            self.progress.update(self.task, description=f"{self.title}  {text}")
        self.progress.advance(self.task)


class LossMeter:
    """Running sums of the loss terms of an epoch, kept on the device, and a count of batches with non-finite values."""

    def __init__(self, device: torch.device) -> None:
        self.names: tuple[str, ...] = ()
        self.device = device
        self.sums = torch.zeros(0, device=device)
        self.bad = torch.zeros((), device=device)
        self.batches = 0

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Adds the terms, scalars, of one batch; NaN and infinity count as bad and are not included in the means."""
        values = torch.stack([value.detach().float() for value in parts.values()])
        self.note(values)
        values = values.nan_to_num(0.0, 0.0, 0.0)
        self.names = tuple(parts)
        self.sums = values if self.batches == 0 else self.sums + values
        self.batches += 1

    def note(self, values: Tensor) -> None:
        """Counts a bad batch if one of the values, any shape, such as a gradient norm, is not finite; does not
        synchronise."""
        self.bad = self.bad + (~values.isfinite()).any()

    def means(self, sums: Tensor | None = None) -> dict[str, float]:
        """Mean of each term over the batches so far; `sums` [terms + counts] replaces the sums of this process."""
        values = (self.sums if sums is None else sums) / max(self.batches, 1)
        return dict(zip(self.names, values.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """State in the middle of an epoch."""
        return {"names": list(self.names), "sums": self.sums, "bad": self.bad, "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the output of `state_dict`."""
        self.names, self.batches = tuple(state["names"]), int(state["batches"])
        self.sums, self.bad = state["sums"].to(self.device), state["bad"].to(self.device)


def diverged(epoch: int, state_kept: bool) -> UserError:
    """The error for a training with a non-finite loss."""
    kept = " The state of the last good epoch is kept in weights/last." if state_kept else ""
    return UserError(
        f"The loss became NaN or infinite in epoch {epoch + 1}. Lower lr0 or the penalty rate, use a longer warm-up, "
        f"or set amp to off.{kept}"
    )
