"""Distribution of sizes (|scale| of channels, mean |weight| of filters) for the logs of a sparse training."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.files import write_text
from secateur.sparsity.rates import RATES, factor_at, rise
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEAR_ZERO = (1e-2, 1e-3)

SizeRow = Mapping[str, float] | Mapping[str, float | str]


def distribution(values: Tensor) -> dict[str, float]:
    """Quantiles of sizes, float [n], and the shares that are close to zero."""
    points = torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype)).tolist()
    result = {f"q{round(q * 100):02d}": point for q, point in zip(QUANTILES, points, strict=True)}
    return result | {f"below_{limit:g}": float((values < limit).float().mean()) for limit in NEAR_ZERO}


def as_csv(rows: Sequence[SizeRow]) -> str:
    """Rows with the same keys as CSV, with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


class Distributions:
    """The distribution after each epoch, for the model and its average: rows of a CSV file and entries of the log.

    Args:
        name: name of the file and of the log entries ("gamma").
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._rows: list[dict[str, float]] = []

    def add(self, run: TrainingRun, rate: float, sizes: Mapping[str, Tensor]) -> dict[str, float]:
        """Logs an epoch and returns its row.

        Args:
            rate: highest rate of the penalty.
            sizes: sizes of the penalised channels or filters, float [n] on the CPU, for "model" and "ema".
        """
        row: dict[str, float] = {"epoch": run.epoch, "rate": rate}
        for which, values in sizes.items():
            row |= {f"{which}/{key}": value for key, value in distribution(values).items()}
            run.log.histogram(f"{self.name}/{which}", values)
        for key, value in row.items():
            if key != "epoch":
                run.log.log(f"{self.name}/{key}", value)
        self._rows.append(row)
        if run.is_main:
            write_text(run.folder / f"{self.name}.csv", as_csv(self._rows))
        return row

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the rows."""
        self._rows = [dict(row) for row in state["rows"]]


class Penalty(Hook):
    """Base of the penalties on sizes: schedule of the rate, and logging of distributions.

    Args:
        name: name of the CSV file, see `Distributions`.
        title: name of the penalty in the log.

    Raises:
        UserError: the schedule is unknown.
    """

    def __init__(self, settings: SparsifySettings, name: str, title: str) -> None:
        RATES[settings.schedule]  # rejects an unknown schedule early
        self.settings, self.title = settings, title
        self._distributions = Distributions(name)
        self._told = False

    def may_stop(self, run: TrainingRun) -> bool:
        """False: the schedule covers all epochs."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """The rows of the CSV file; rates depend only on the position in the training."""
        return self._distributions.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the rows."""
        self._distributions.load_state_dict(state)

    def factors(self, run: TrainingRun, prunable: Tensor, sizes: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """Current factors of the rate: one per channel or filter, float32 [n], and a common one.

        Args:
            prunable: bool [n]; the others have the factor 0.
            sizes: returns the sizes of the prunable ones, for schedules that use them.
        """
        factor, each = factor_at(self.settings.schedule, run.epoch / run.epochs, sizes), prunable.float()
        if not isinstance(factor, Tensor):
            return each, factor
        each[prunable] = factor
        return each, 1.0

    def rise(self, run: TrainingRun) -> float:
        """Share of the rate that the ramp currently allows."""
        return rise(self.settings.ramp, run.iteration, run.schedule.batches)

    def leave_out(self, run: TrainingRun, missing: int, what: str) -> None:
        """Logs once that some parameters do not contribute to the loss."""
        if missing and not self._told:
            self._told = True
            run.log.message(f"{self.title}: {missing} {what} do not contribute to the loss and are skipped.")
