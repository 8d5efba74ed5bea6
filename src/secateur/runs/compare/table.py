"""Prints a comparison: the table, the confidence intervals of the differences, and optionally all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from secateur.evaluation.bootstrap import FIGURES, Difference
from secateur.evaluation.metrics import Metrics
from secateur.report.table import TableRow, console_for_tables, fitting_table


@dataclass(frozen=True)
class Compared:
    """One network of a comparison.

    Attributes:
        given: as given by the user.
        name: name in the table.
        metrics: COCO metrics.
        ap_by_size: AP of small, medium and large objects.
        model: the `model` entry of summaries, if known.
        image_size: image size of the evaluation in px; None for an earlier evaluation.
        ms: median milliseconds per image.
        speed: images per second relative to the first timed network.
        runtime: the runtime that was timed.
        difference: difference to the reference by metric; {} for the reference itself.
    """

    given: str
    name: str
    metrics: Metrics
    ap_by_size: Mapping[str, float | None]
    model: Mapping[str, Any]
    image_size: Any
    ms: float | None
    speed: float | None
    runtime: str | None
    difference: Mapping[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "file": self.given,
            "name": self.name,
            "metrics": self.metrics.to_dict(),
            "ap_by_size": dict(self.ap_by_size),
            "per_class": list(self.metrics.rows),
            "model": dict(self.model),
            "image_size": self.image_size,
            "latency_ms": self.ms,
            "speed": self.speed,
            "runtime": self.runtime,
            "difference": {figure: found.to_dict() for figure, found in self.difference.items()} or None,
        }

    def table_row(self) -> TableRow:
        """The row of the table."""
        return TableRow(
            self.name,
            self.metrics.values,
            self.metrics.judged_by,
            self.model.get("parameters"),
            self.model.get("gflops"),
            self.model.get("file_mb"),
            self.ms,
            sizes=self.ap_by_size,
        )


def print_comparison(rows: Sequence[Compared], title: str, *, classes: bool) -> None:
    """Prints the table, the speeds and the intervals.

    Args:
        rows: the networks, the reference first.
        title: title of the table.
        classes: whether to print mAP50-95 of every class too.
    """
    console = console_for_tables()
    console.print(fitting_table(console, [row.table_row() for row in rows], title, "Network"))
    for row in rows:
        if row.speed is not None and row is not rows[0]:
            print(f"{row.name} on {row.runtime}: {row.speed:.2f} times the images per second")
    first = rows[0].name
    resamples = next(iter(rows[1].difference.values())).resamples
    print(f"Difference to {first}, with 95 % intervals from {resamples:,} resamples of the images:")
    for row in rows[1:]:
        for figure in FIGURES:
            print(f"  {row.name}: {figure} {row.difference[figure].line()}")
    if classes:
        console.print(_classes(rows))


def _classes(rows: Sequence[Compared]) -> Table:
    table = Table(title="mAP50-95 per class", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("Class")
    for name in ("Objects", *(row.name for row in rows)):
        table.add_column(name, justify="right")
    for per_class in zip(*(row.metrics.per_class for row in rows), strict=True):
        values = [f"{entry.mAP50_95:.3f}" for entry in per_class]
        table.add_row(per_class[0].name, str(per_class[0].instances), *values)
    return table
