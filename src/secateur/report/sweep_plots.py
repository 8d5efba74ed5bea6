"""The plot of a sweep: accuracy and cost against the share of channels removed, with the cliff between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from secateur.report.figures import ACCENT, INK, PALETTE, SECOND, new_figure, save_figure

_COST = (("parameters", "parameters", ACCENT), ("gflops", "FLOPs", SECOND))


def plot_sweep(
    rows: Sequence[Mapping[str, float | None]],
    judged_by: Sequence[str],
    path: str | Path,
    *,
    knee: float | None = None,
) -> Path:
    """Two panels: scores of the masked (cut, fine-tuned) network, and its cost as a share of the dense one's.

    Args:
        rows: the dense network first; `removed` (share, 0 to 1), the figures by their names, `parameters`, `gflops`,
            and where they were measured the figures as `cut_NAME` and `tuned_NAME`. What is None or missing is not
            drawn.
        judged_by: names of one or two figures, the coarse one first (`Scores.judged_by`).
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
    """Column of a row, name in the legend, colour, line, marker."""
    coarse = judged_by[0]
    lines = [(n, f"{n}, masked", colour, "-", "o") for n, colour in zip(judged_by, (ACCENT, PALETTE[3]), strict=False)]
    lines.append((f"cut_{coarse}", f"{coarse}, cut", INK, "none", "x"))
    tuned = zip(judged_by, (SECOND, PALETTE[2]), strict=False)
    return lines + [(f"tuned_{name}", f"{name}, fine-tuned", colour, "--", "s") for name, colour in tuned]


def _column(rows: Sequence[Mapping[str, float | None]], key: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The values of a column, NaN where there is none."""
    values = [row.get(key) for row in rows]
    return np.array([np.nan if value is None else float(value) for value in values])
