"""The rows of a run's table: every checkpoint that a step makes is saved, measured, and noted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from secateur.compression.measuring import describe, evaluate, val_settings
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.report.pictures import draw_evaluation
from secateur.sparsity.report import write_sparsity

LOG = logging.getLogger("secateur")

Row = dict[str, Any]


class SavedRows:
    """Rows whose checkpoints lie in the run's folder, measured on the splits that the data set has of those asked for.

    Attributes:
        folder: for the checkpoints.
        splits: "val", and "test" where it is wanted too.
        reports: gives the folder for the curves and the zeros of a row.
        rows: what was noted so far, in order.
    """

    def __init__(self, folder: Path, splits: Sequence[str], reports: Callable[[str], Path]) -> None:
        self.folder, self.splits, self.reports = folder, tuple(splits), reports
        self.rows: list[Row] = []

    def add(
        self,
        context: Context,
        name: str,
        title: str,
        make: Callable[[], Checkpoint],
        *,
        plots: bool = False,
        beside: bool = False,
    ) -> Checkpoint:
        """Saves what `make` gives as NAME.safetensors, measures it, notes its row; a part of the run's memory."""
        file = self.folder / f"{name}.safetensors"

        def work() -> Row:
            checkpoint = make()
            save_checkpoint(checkpoint, file)
            write_sparsity(self.reports(name), checkpoint)
            row = self.measure(context, name, title, checkpoint, plots)
            return row | {"beside": name} if beside else row

        self.rows.append(dict(context.memory.step(name, work)))
        return load_checkpoint(file)

    def beside(self) -> dict[str, Checkpoint]:
        """The detectors of the rows that are no stages of the run's own, by name."""
        names = [str(row["beside"]) for row in self.rows if "beside" in row]
        return {name: load_checkpoint(self.folder / f"{name}.safetensors") for name in names}

    def measure(self, context: Context, name: str, title: str, checkpoint: Checkpoint, plots: bool) -> Row:
        """Scores where there is a data set, and the cost of the model."""
        row: Row = {"stage": title, "model": describe(checkpoint, context.image_size)}
        row |= {"metrics": None, "test": None, "per_class": [], "speed_ms": {}}
        if context.data is None or not context.data.labelled:
            return row
        settings = val_settings(context, plots=plots)
        splits = [split for split in self.splits if split in context.data.splits]
        results = {split: evaluate(checkpoint, context, split, settings) for split in splits}
        draw_evaluation(self.reports(name), results["val"])  # none without curves
        scores = results["val"]
        LOG.info("%s: %s", title, scores.line())
        test = results["test"].to_dict() if "test" in results else None
        return row | scores.summary() | {"judged_by": list(scores.judged_by), "test": test}


def last_stage(rows: Sequence[Row]) -> Row:
    """The row of the detector that the run ends with; those beside it do not count."""
    return next(row for row in reversed(rows) if "beside" not in row)


def note_latency(rows: Sequence[Row], times: dict[str, float] | None) -> None:
    """Puts the times of "dense" and "final" beside the rows that have their shapes; widths in between are not timed.

    Detectors beside the run's own have times of their own.
    """
    sizes = {"dense": rows[0]["model"]["gflops"], "final": last_stage(rows)["model"]["gflops"]}
    for row in rows:
        same = next((name for name, size in sizes.items() if row["model"]["gflops"] == size), None)
        name = row.get("beside", same)
        row["latency_ms"] = times.get(name) if times and name else None
