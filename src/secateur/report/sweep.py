"""A sweep as table, CSV and plot: accuracy and cost against the share of removed channels."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secateur.report.figures import ACCENT, INK, PALETTE, SECOND, new_figure, save_figure

SweepRow = Mapping[str, Any]
EQUAL = 0.001
"""Largest difference of the coarse metric at which a cut network counts as equal to the masked one."""
_COST = (("parameters", "parameters", ACCENT), ("gflops", "FLOPs", SECOND))


def cliff_row(rows: Sequence[SweepRow], knee: float | None) -> int | None:
    """Index of the last row before accuracy falls steeply; None if it never does (or is zero everywhere)."""
    number = next((i for i, row in enumerate(rows) if row["removed"] == knee), None)
    return number if number is not None and rows[-1]["removed"] > rows[number]["removed"] else None


def csv_text(rows: Sequence[SweepRow]) -> str:
    """The table as CSV. The dense row has no values in the columns of cut and fine-tuned detectors."""
    names = list(rows[-1])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_table(rows: Sequence[SweepRow], judged_by: Sequence[str], cliff: int | None) -> str:
    """The table as text: one line per ratio, with the cliff marked, and limited ratios with the share that is actually
    removed.

    Args:
        rows: rows, the dense detector first.
        judged_by: names of the metrics, the coarse one first (`Scores.judged_by`).
        cliff: index of the row before the cliff, or None.
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
        return "The dense detector detects nothing on the val split, so the cliff cannot be determined."
    if cliff is None:
        return f"No cliff up to {rows[-1]['removed']:.0%} of channels: accuracy does not fall steeply."
    return f"Cliff: accuracy falls steeply beyond {rows[cliff]['removed']:.1%} of channels."


def equality_sentence(rows: Sequence[SweepRow], figure: str) -> str:
    """Whether the cut detectors equal the masked ones in one metric, as a sentence."""
    cut = f"cut_{figure}"
    largest = max(abs(row[cut] - row[figure]) for row in rows if cut in row)
    if largest <= EQUAL:
        return f"The cut detectors equal the masked ones ({figure} differs by at most {largest:.5f})."
    return f"The cut detectors differ from the masked ones: {figure} by up to {largest:.5f}."


def plot_sweep(
    rows: Sequence[Mapping[str, float | None]],
    judged_by: Sequence[str],
    path: str | Path,
    *,
    knee: float | None = None,
) -> Path:
    """Plots two panels: scores of the masked (cut, fine-tuned) network, and its cost as a share of the dense one's.

    Args:
        rows: the dense network first; `removed` (share, 0 to 1), the metrics by name, `parameters`, `gflops`, and if
            measured the metrics as `cut_NAME` and `tuned_NAME`. None and missing values are not drawn.
        judged_by: names of one or two metrics, the coarse one first (`Scores.judged_by`).
        path: file to write.
        knee: removed share after which accuracy falls steeply.
    """
    removed = _column(rows, "removed")
    figure, (accuracy, cost) = new_figure(11, 4.6, 1, 2)
    top = 0.0
    for key, name, colour, line, marker in _lines(judged_by):
        values = _column(rows, key)
        known = np.isfinite(values)
        if known.any():
            top = max(top, float(values[known].max()))
            accuracy.plot(
                100 * removed[known],
                values[known],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=6,
                label=name,
            )
    for key, name, colour in _COST:
        values = _column(rows, key)
        cost.plot(100 * removed, 100 * values / max(values[0], 1e-12), color=colour, marker="o", label=name)
    for axis in (accuracy, cost):
        if knee is not None:
            axis.axvline(100 * knee, color=PALETTE[2], linewidth=1.6, linestyle=(0, (4, 3)), label=f"cliff {knee:.0%}")
        axis.set_xlabel("channels removed, %")
        axis.legend(loc="best", frameon=False)
    accuracy.set(
        ylabel="accuracy" if len(judged_by) > 1 else judged_by[0], ylim=(0, max(0.05, 1.08 * top)), title="Accuracy"
    )
    cost.set(ylabel="of the dense detector, %", ylim=(0, 105), title="Cost")
    return save_figure(figure, path)


def _lines(judged_by: Sequence[str]) -> list[tuple[str, str, str, str, str]]:
    """For each line: column of a row, name in the legend, colour, line style, marker."""
    coarse = judged_by[0]
    lines = [(n, f"{n}, masked", colour, "-", "o") for n, colour in zip(judged_by, (ACCENT, PALETTE[3]), strict=False)]
    lines.append((f"cut_{coarse}", f"{coarse}, cut", INK, "none", "x"))
    tuned = zip(judged_by, (SECOND, PALETTE[2]), strict=False)
    return lines + [(f"tuned_{name}", f"{name}, fine-tuned", colour, "--", "s") for name, colour in tuned]


def _column(rows: Sequence[Mapping[str, float | None]], key: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The values of a column, float64 [rows]; NaN for missing ones."""
    values = [row.get(key) for row in rows]
    return np.array([np.nan if value is None else float(value) for value in values])
