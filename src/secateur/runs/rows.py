"""The rows of a run's table: every checkpoint that a step makes is saved, measured, and noted."""

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
    """Rows whose checkpoints are in the run's folder, measured on the splits that the data set has of those asked for.

    Attributes:
        progress: of the run, whose folder the checkpoints are in.
        splits: "val", and "test" where it is wanted too.
        reports: gives the folder for the curves and the zeros of a row.
        rows: what was noted so far, in order.
        files: the checkpoints so far, by the names of their rows.
        notes: what steps noted so far, by name.
        spent: seconds that the steps have taken so far.
        epoch_seconds: of the last training; None where nothing was trained yet.
    """

    def __init__(self, progress: Progress, splits: Sequence[str], reports: Callable[[str], Path]) -> None:
        self.progress, self.splits, self.reports = progress, tuple(splits), reports
        self.rows: list[RunRow] = []
        self.files: dict[str, Path] = {}
        self.notes: dict[str, Any] = {}
        self.spent = 0.0
        self.epoch_seconds: float | None = None

    def records(self, name: str) -> Path:
        """The folder for the detections of a row, also where its other reports are those of the whole run."""
        return self.progress.folder / "evaluation" / name

    @property
    def compared(self) -> dict[str, Path]:
        """The files of the rows that are no stages of the run's own detector."""
        return {row["beside"]: self.files[row["beside"]] for row in self.rows if "beside" in row}

    def after(
        self, part: str, context: Context, run: Callable[[], Outcome], current: Checkpoint, *, together: bool = False
    ) -> Checkpoint:
        """Does a step, once, and saves and measures what it made.

        Args:
            part: its name.
            context: that it works in; the mark of a repeated step tells its names from those of the first.
            run: does it.
            current: what it starts from.
            together: of several processes all do it; otherwise the first one does. That one saves and measures.

        Returns:
            what the next step starts from.
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
        """The saved checkpoint, measured once for its row."""
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
        """Scores where there is a data set, and the cost of the model."""
        row: RunRow = {"stage": title, "name": name, "model": describe(checkpoint, context.image_size)}
        row |= {"metrics": None, "test": None, "per_class": [], "speed_ms": {}}
        if context.data is None or not context.data.labelled:
            return row
        settings = val_settings(context, plots=plots, detections=True)
        splits = [split for split in self.splits if split in context.data.splits]
        results = {split: evaluate(checkpoint, context, split, settings) for split in splits}
        draw_evaluation(self.reports(name), results["val"])  # none without curves
        for found in results.values():
            save_record(self.records(name), found)
        scores = results["val"]
        LOG.info("%s: %s", title, scores.line())
        test = results["test"].to_dict() if "test" in results else None
        return row | scores.summary() | {"judged_by": list(scores.judged_by), "test": test}


def save_result(checkpoint: Checkpoint, file: Path, image_size: ImageSize) -> list[str]:
    """Saves what a run ends with, also as a file of the family's own where it hands one out.

    Returns:
        sentences for the user: where it is, and what to know of it.
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
    """The row of the detector that the run ends with; those beside it do not count."""
    return next(row for row in reversed(rows) if "beside" not in row)


def note_latency(rows: Sequence[RunRow], times: dict[str, float] | None) -> None:
    """Puts the times of "dense" and "final" beside the rows that have their shapes; widths in between are not timed.

    Detectors beside the run's own have times of their own.
    """
    sizes = {"dense": rows[0]["model"]["gflops"], "final": last_stage(rows)["model"]["gflops"]}
    for row in rows:
        same = next((name for name, size in sizes.items() if row["model"]["gflops"] == size), None)
        name = row.get("beside", same)
        row["latency_ms"] = times.get(name) if times and name else None
