"""The table of a sweep as text and as CSV, and the sentences below it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

SweepRow = Mapping[str, Any]
EQUAL = 0.001
"""Largest difference of the coarse figure at which the cut network counts as equal to the masked one."""


def cliff_row(rows: Sequence[SweepRow], knee: float | None) -> int | None:
    """Number of the last row before accuracy falls steeply; None where it falls nowhere (or is nought everywhere)."""
    number = next((i for i, row in enumerate(rows) if row["removed"] == knee), None)
    return number if number is not None and rows[-1]["removed"] > rows[number]["removed"] else None


def csv_text(rows: Sequence[SweepRow]) -> str:
    """The table as CSV; the dense row has no values in the columns of cut and fine-tuned detectors."""
    names = list(rows[-1])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_table(rows: Sequence[SweepRow], judged_by: Sequence[str], cliff: int | None) -> str:
    """The table as text: one line a percent, the cliff marked, clamped ones with what really goes.

    Args:
        judged_by: names of the figures, the coarse one first (`Scores.judged_by`).
    """
    coarse, *others = judged_by
    extra = {f"cut_{coarse}": f"cut {coarse}"} | {f"tuned_{name}": f"tuned {name}" for name in judged_by}
    shown = {key: title for key, title in extra.items() if key in rows[-1]}
    widths = {name: max(7, len(name) + 1) for name in judged_by}
    titles = f"{'percent':>8} {coarse:>{widths[coarse]}} {'change':>7}"
    titles += "".join(f" {name:>{widths[name]}}" for name in others) + f" {'params (M)':>11} {'GFLOPs':>8}"
    lines = [" ".join([titles, *(f"{title:>{len(title)}}" for title in shown.values())])]
    for number, row in enumerate(rows):
        percent = f"{row['percent']:.1%}" if row["percent"] else "dense"
        change = f"{row[coarse] - rows[0][coarse]:+.3f}" if number else ""
        cells = f"{percent:>8} {row[coarse]:>{widths[coarse]}.3f} {change:>7}"
        cells += "".join(f" {row[name]:>{widths[name]}.3f}" for name in others)
        cells += f" {row['parameters'] / 1e6:>11.3f} {row['gflops']:>8.3g}"
        for key, title in shown.items():
            cells += f" {row[key]:>{len(title)}.3f}" if key in row else f" {'-':>{len(title)}}"
        if abs(row["removed"] - row["percent"]) > 0.005:
            cells += f"  (guards: {row['removed']:.1%} removed)"
        lines.append(cells + ("  <- cliff" if number == cliff else ""))
    return "\n".join(lines)


def cliff_sentence(rows: Sequence[SweepRow], knee: float | None, cliff: int | None) -> str:
    if knee is None:
        return "The dense detector detects nothing on the val split, so there is no cliff to find."
    if cliff is None:
        return f"No cliff up to {rows[-1]['removed']:.0%}: accuracy falls nowhere steeply."
    return f"The cliff: past {rows[cliff]['removed']:.1%} of channels accuracy falls steeply."


def equality_sentence(rows: Sequence[SweepRow], figure: str) -> str:
    """Whether the cut detectors do what the masked ones do, by one figure."""
    cut = f"cut_{figure}"
    largest = max(abs(row[cut] - row[figure]) for row in rows if cut in row)
    if largest <= EQUAL:
        return f"The cut detectors equal the masked ones ({figure} differs by at most {largest:.5f})."
    return f"The cut detectors differ from the masked ones: {figure} by up to {largest:.5f}."
