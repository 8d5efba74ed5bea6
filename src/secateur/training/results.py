"""What a training reports: results.csv with YOLOv5's columns, TensorBoard, the progress bar and one line an epoch."""

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
"""Logger whose handlers write what a training says into the log of its run."""


class HeldOutLoss(Scores):
    """What a training without labels is judged by: its own loss on images that it does not train on."""

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
    """Collects an epoch's figures and hands them to results.csv and to the trackers; silent off the main process."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.is_main = accelerator.is_main_process
        self.rows: list[EpochRow] = []
        self._scalars: EpochRow = {}
        self._step = 0
        if accelerator.log_with and self.is_main:
            accelerator.init_trackers("tensorboard")

    def message(self, text: str) -> None:
        """One line for the user; where the run keeps a log, there too."""
        if self.is_main:
            print(text, file=sys.stderr, flush=True)
        # It is for the terminal whatever a program logs, so the line must not come out of the logger once more.
        kept = logging.getLogger(KEPT)
        for handler in kept.handlers:
            handler.handle(kept.makeRecord(KEPT, logging.INFO, "", 0, text, (), None))

    def log(self, name: str, value: float) -> None:
        """A figure of this epoch for the trackers."""
        self._scalars[name] = float(value)

    def histogram(self, name: str, values: Tensor) -> None:
        """A distribution of this epoch, for TensorBoard where it is in use."""
        if not self.is_main:
            return
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.tracker.add_histogram(name, values.detach().float().cpu(), self._step)

    def begin(self, epoch: int) -> None:
        """Figures that follow belong to this epoch."""
        self._step, self._scalars = epoch, {}

    def end(self, row: EpochRow) -> None:
        """Closes the epoch: its row goes into results.csv, all figures to the trackers."""
        self.rows.append(row)
        if not self.is_main:
            return
        self.write_results()
        if self.accelerator.trackers:
            self.accelerator.log({k: v for k, v in row.items() if k != "epoch"} | self._scalars, step=self._step)

    def restore(self, rows: Any) -> None:
        """Takes the rows of a training that goes on.

        Raises:
            ValueError: these are no rows.
        """
        self.rows = [dict(row) for row in rows]
        for name, value in (cell for row in self.rows for cell in row.items()):
            if name.split("/")[0] not in COLUMN_GROUPS or not isinstance(value, int | float):
                raise ValueError(f"column {name}")

    def write_results(self) -> None:
        """Writes all rows; a resumed training thus repeats none."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        columns = sorted(names, key=lambda name: COLUMN_GROUPS.index(name.split("/")[0]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: int(v) if k == "epoch" else f"{v:.5g}" for k, v in row.items()})
        write_text(self.folder / RESULTS, text.getvalue())

    def close(self) -> None:
        """Flushes and closes the trackers; the processes stay together for what follows."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.trackers = []


def epochs_in(folder: Path) -> int:
    """Epochs that the results.csv of a training tells of; 0 where there is none."""
    file = folder / RESULTS
    return max(len(file.read_text(encoding="utf-8").splitlines()) - 1, 0) if file.is_file() else 0


def make_row(epoch: int, parts: Mapping[str, float], scores: Scores | None, rates: list[float]) -> EpochRow:
    """One epoch under the names of its columns; one that was not evaluated has no scores."""
    row: EpochRow = {"epoch": epoch} | {f"train/{name}_loss": value for name, value in parts.items()}
    row |= scores.to_columns() if scores is not None else {}
    return row | {f"x/lr{i}": rate for i, rate in enumerate(rates)}


class EpochBar:
    """The progress bar of one epoch, on the main process's terminal only."""

    def __init__(self, log: RunLog, epoch: int, epochs: int, total: int, done: int) -> None:
        self.title = f"{epoch + 1}/{epochs}"
        self.progress = bar("epoch {task.description}", shown=log.is_main, refresh=4)
        self.task: TaskID = self.progress.add_task(self.title, total=total, completed=done)

    def __enter__(self) -> EpochBar:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def advance(self, meter: LossMeter) -> None:
        """One batch more; the losses shown are the epoch's means so far."""
        if self.progress.drawn and meter.batches % 10 == 1:  # reading the losses waits for an accelerator's queue
            text = "  ".join(f"{name} {value:.4f}" for name, value in meter.means().items())
            self.progress.update(self.task, description=f"{self.title}  {text}")
        self.progress.advance(self.task)


class LossMeter:
    """Running sums of the loss parts of an epoch, kept on the device, and a count of batches that were no numbers."""

    def __init__(self, device: torch.device) -> None:
        self.names: tuple[str, ...] = ()
        self.device = device
        self.sums = torch.zeros(0, device=device)
        self.bad = torch.zeros((), device=device)
        self.batches = 0

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """One batch; NaN and infinity count as bad and not into the means."""
        values = torch.stack([value.detach().float() for value in parts.values()])
        self.note(values)
        values = values.nan_to_num(0.0, 0.0, 0.0)
        self.names = tuple(parts)
        self.sums = values if self.batches == 0 else self.sums + values
        self.batches += 1

    def note(self, values: Tensor) -> None:
        """Counts a bad batch when a value (a gradient norm, say) is no finite number; waits for nothing."""
        self.bad = self.bad + (~values.isfinite()).any()

    def means(self, sums: Tensor | None = None) -> dict[str, float]:
        """Mean of each part over the batches so far; `sums` replaces this process's own sums."""
        values = (self.sums if sums is None else sums) / max(self.batches, 1)
        return dict(zip(self.names, values.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """For a state in the middle of an epoch."""
        return {"names": list(self.names), "sums": self.sums, "bad": self.bad, "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.names, self.batches = tuple(state["names"]), int(state["batches"])
        self.sums, self.bad = state["sums"].to(self.device), state["bad"].to(self.device)


def diverged(epoch: int, state_kept: bool) -> UserError:
    """The error of a training whose loss is no number any more."""
    kept = " The state of the last good epoch is kept; weights/last holds it." if state_kept else ""
    return UserError(
        f"The loss became NaN or infinite in epoch {epoch + 1}; lower lr0 or the penalty rate, lengthen the warm-up, "
        f"or switch amp off.{kept}"
    )
