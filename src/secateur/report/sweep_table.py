"""The table of a sweep as text and as CSV, and the sentences below it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
EQUAL = 0.001
"""Largest difference of mAP50 at which the cut detector counts as equal to the masked one."""


def cliff_row(rows: Sequence[Row], knee: float | None) -> int | None:
    """Number of the last row before accuracy falls steeply; None where it falls nowhere (or is nought everywhere)."""
    number = next((i for i, row in enumerate(rows) if row["removed"] == knee), None)
    return number if number is not None and rows[-1]["removed"] > rows[number]["removed"] else None


def csv_text(rows: Sequence[Row]) -> str:
    """The table as CSV; the dense row has no values in the columns of cut and fine-tuned detectors."""
    names = list(rows[-1])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_table(rows: Sequence[Row], cliff: int | None) -> str:
    """The table as text: one line a percent, the cliff marked, clamped ones with what really goes."""
    extra = {"cut_mAP50": "cut mAP50", "tuned_mAP50": "tuned mAP50", "tuned_mAP50-95": "tuned mAP50-95"}
    shown = {key: title for key, title in extra.items() if key in rows[-1]}
    titles = f"{'percent':>8} {'mAP50':>7} {'change':>7} {'mAP50-95':>9} {'params (M)':>11} {'GFLOPs':>8}"
    lines = [" ".join([titles, *(f"{title:>{len(title)}}" for title in shown.values())])]
    for number, row in enumerate(rows):
        percent = f"{row['percent']:.1%}" if row["percent"] else "dense"
        change = f"{row['mAP50'] - rows[0]['mAP50']:+.3f}" if number else ""
        cells = f"{percent:>8} {row['mAP50']:>7.3f} {change:>7} {row['mAP50-95']:>9.3f} "
        cells += f"{row['parameters'] / 1e6:>11.3f} {row['gflops']:>8.3g}"
        for key, title in shown.items():
            cells += f" {row[key]:>{len(title)}.3f}" if key in row else f" {'-':>{len(title)}}"
        if abs(row["removed"] - row["percent"]) > 0.005:
            cells += f"  (guards: {row['removed']:.1%} removed)"
        lines.append(cells + ("  <- cliff" if number == cliff else ""))
    return "\n".join(lines)


def cliff_sentence(rows: Sequence[Row], knee: float | None, cliff: int | None) -> str:
    if knee is None:
        return "The dense detector detects nothing on the val split, so there is no cliff to find."
    if cliff is None:
        return f"No cliff up to {rows[-1]['removed']:.0%}: accuracy falls nowhere steeply."
    return f"The cliff: past {rows[cliff]['removed']:.1%} of channels accuracy falls steeply."


def equality_sentence(rows: Sequence[Row]) -> str:
    """Whether the cut detectors do what the masked ones do."""
    largest = max(abs(row["cut_mAP50"] - row["mAP50"]) for row in rows if "cut_mAP50" in row)
    if largest <= EQUAL:
        return f"The cut detectors equal the masked ones (mAP50 differs by at most {largest:.5f})."
    return f"The cut detectors differ from the masked ones: mAP50 by up to {largest:.5f}."
