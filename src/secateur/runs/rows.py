"""Rows of a run's table: every checkpoint made by a step is saved, evaluated and recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.evaluation.record import save_record
from secateur.families.context import Context
from secateur.families.evaluation import describe, evaluate, val_settings
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.files import atomic_write
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.report.run_folder_plots import draw_evaluation
from secateur.runs.progress import Progress
from secateur.sizes import ImageSize, sides_of
from secateur.sparsity.report import write_sparsity
from secateur.steps.step import EPOCH_SECONDS, Made, Outcome
from secateur.training.distributed import rank_and_world

LOG = logging.getLogger("secateur")

RunRow = dict[str, Any]


class SavedRows:
    """Rows whose checkpoints are saved in the run's folder and evaluated on the requested splits that the data set has.

    Attributes:
        progress: the resumable record, in whose folder the checkpoints are saved.
        splits: "val", and "test" if requested.
        reports: returns the folder for the curves and the zeros report of a row.
        rows: rows so far, in order.
        files: checkpoints so far, by the names of their rows.
        notes: notes of steps so far, by name.
        spent: seconds that the steps have taken so far.
        epoch_seconds: seconds per epoch of the last training; None before the first training.
    """

    def __init__(self, progress: Progress, splits: Sequence[str], reports: Callable[[str], Path]) -> None:
        self.progress, self.splits, self.reports = progress, tuple(splits), reports
        self.rows: list[RunRow] = []
        self.files: dict[str, Path] = {}
        self.notes: dict[str, Any] = {}
        self.spent = 0.0
        self.epoch_seconds: float | None = None

    def records(self, name: str) -> Path:
        """The folder for the detections of a row, which is its own even if its other reports belong to the run."""
        return self.progress.folder / "evaluation" / name

    @property
    def compared(self) -> dict[str, Path]:
        """The files of rows that are only for comparison and not stages of the run's detector."""
        return {row["beside"]: self.files[row["beside"]] for row in self.rows if "beside" in row}

    def after(
        self, part: str, context: Context, run: Callable[[], Outcome], current: Checkpoint, *, together: bool = False
    ) -> Checkpoint:
        """Runs a step once, then saves and evaluates its results.

        Args:
            part: name of the step's part.
            context: context of the step; its mark distinguishes the names of repeated steps.
            run: runs the step.
            current: input of the step.
            together: whether all processes run the step; otherwise the first one does. The first one saves and
                evaluates.

        Returns:
            the input of the next step.
        """

        def work() -> dict[str, Any]:
            begun = time.perf_counter()
            outcome = run()
            rows = [self._saved(made, context) for made in outcome.made]
            return {"rows": rows, "notes": dict(outcome.notes), "seconds": time.perf_counter() - begun}

        record = self.progress.step(f"{part}{context.name_suffix}", work, together=together)
        self.spent += record.get("seconds", 0.0)
        self.epoch_seconds = record["notes"].get(EPOCH_SECONDS, self.epoch_seconds)
        self.notes |= {f"{name}{context.name_suffix}": note for name, note in record["notes"].items()}
        for made in record["rows"]:
            checkpoint = self._added(context, made)
            current = current if made["compared"] else checkpoint
        return current

    def _saved(self, made: Made, context: Context) -> dict[str, Any]:
        name = f"{made.name}{context.name_suffix}"
        if rank_and_world()[0] == 0:
            save_checkpoint(made.checkpoint, self.progress.folder / f"{name}.safetensors")
        return {"name": name, "title": made.title or context.title, "plots": made.plots, "compared": made.compared}

    def _added(self, context: Context, made: Mapping[str, Any]) -> Checkpoint:
        """Loads the saved checkpoint and evaluates it once for its row."""
        name = made["name"]
        file = self.files[name] = self.progress.folder / f"{name}.safetensors"
        checkpoint = load_checkpoint(file)

        def work() -> RunRow:
            write_sparsity(self.reports(name), checkpoint)
            row = self.measure(context, name, made["title"], checkpoint, made["plots"])
            return row | {"beside": name} if made["compared"] else row

        self.rows.append(dict(self.progress.step(f"row {name}", work)))
        return checkpoint

    def measure(self, context: Context, name: str, title: str, checkpoint: Checkpoint, plots: bool) -> RunRow:
        """Scores (if there is a data set) and the cost of the network."""
        row: RunRow = {"stage": title, "name": name, "model": describe(checkpoint, context.image_size)}
        row |= {"metrics": None, "test": None, "per_class": [], "speed_ms": {}}
        if context.data is None or not context.data.labelled:
            return row
        settings = val_settings(context, plots=plots, detections=True)
        splits = [split for split in self.splits if split in context.data.splits]
        results = {split: evaluate(checkpoint, context, split, settings) for split in splits}
        draw_evaluation(self.reports(name), results["val"])  # nothing to draw without curves
        for found in results.values():
            save_record(self.records(name), found)
        scores = results["val"]
        LOG.info("%s: %s", title, scores.line())
        test = results["test"].to_dict() if "test" in results else None
        return row | scores.summary() | {"judged_by": list(scores.judged_by), "test": test}


def save_result(checkpoint: Checkpoint, file: Path, image_size: ImageSize) -> list[str]:
    """Saves the final checkpoint of a run, also in the family's own format if it has one.

    Returns:
        messages for the user: the paths, and notes about them.
    """
    save_checkpoint(checkpoint, file)
    told, family = [f"Saved to {file}"], family_of(checkpoint)
    if family.hands_out:
        own = file.with_suffix(family.hands_out)
        with atomic_write(own) as temporary:
            note = family.write(checkpoint.build().float().eval(), temporary, max(sides_of(image_size)))
        told.append(f"Saved to {own}{': ' if note else ''}{note.replace('{file}', own.name)}")
    return told


def last_stage(rows: Sequence[RunRow]) -> RunRow:
    """The row of the run's final detector; rows for comparison are ignored."""
    return next(row for row in reversed(rows) if "beside" not in row)


def note_latency(rows: Sequence[RunRow], times: dict[str, float] | None) -> None:
    """Adds the latencies of "dense" and "final" to the rows with the same shapes. Intermediate widths are not timed.

    Networks for comparison have latencies of their own.
    """
    sizes = {"dense": rows[0]["model"]["gflops"], "final": last_stage(rows)["model"]["gflops"]}
    for row in rows:
        same = next((name for name, size in sizes.items() if row["model"]["gflops"] == size), None)
        name = row.get("beside", same)
        row["latency_ms"] = times.get(name) if times and name else None
