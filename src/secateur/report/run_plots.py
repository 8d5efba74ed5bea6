"""Plots of a run: training curves from results.csv, the cliff curve of pruning, histograms of gammas."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError
from secateur.report.figures import ACCENT, FAINT, INK, PALETTE, SECOND, new_figure, save_figure

_FIRST = ("train/", "metrics/", "val/")  # order of the panels; other columns follow


def plot_results(csv_file: str | Path, path: str | Path) -> Path:
    """A panel a column of results.csv against the epoch; the best epoch by fitness is marked where mAP is there.

    Args:
        csv_file: header and a row an epoch; blanks around names and values do not matter.
        path: picture to write.

    Raises:
        UserError: the file cannot be read or holds no rows.
    """
    columns = read_results(csv_file)
    epochs = columns.pop("epoch", np.arange(len(next(iter(columns.values())))).astype(float))
    names = sorted(columns, key=lambda name: next((i for i, p in enumerate(_FIRST) if name.startswith(p)), len(_FIRST)))
    names = [name for name in names if np.isfinite(columns[name]).any()]
    best = _best_epoch(columns, epochs)
    across = min(5, max(1, math.ceil(math.sqrt(1.6 * len(names)))))
    down = max(1, math.ceil(len(names) / across))
    figure, axes = new_figure(3.1 * across, 2.5 * down, down, across)
    for axis, name in zip(axes, names, strict=False):
        colour = SECOND if name.startswith("train/") else ACCENT if name.startswith("metrics/") else PALETTE[3]
        finite = np.isfinite(columns[name])
        marker = "." if finite.sum() < 30 else None
        axis.plot(epochs[finite], columns[name][finite], color=colour, linewidth=1.6, marker=marker)
        if best is not None:
            axis.axvline(best, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axis.set_title(name, fontsize=10)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis in axes[max(0, len(names) - across) : len(names)]:
        axis.set_xlabel("epoch")
    if best is not None:
        figure.suptitle(f"dashed: best epoch, {best:g}", fontsize=9, x=0.99, ha="right")
    return save_figure(figure, path)


def read_results(csv_file: str | Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a results.csv as numbers; what is not a number becomes NaN.

    Raises:
        UserError: the file cannot be read or holds no rows.
    """
    try:
        with Path(csv_file).open(newline="", encoding="utf-8") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {csv_file}: {error}.") from None
    if len(rows) < 2:
        raise UserError(f"{csv_file} holds no epochs yet.")
    header, body = rows[0], rows[1:]
    return {
        name: np.asarray([_number(row[i]) if i < len(row) else math.nan for row in body])
        for i, name in enumerate(header)
        if name
    }


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _best_epoch(columns: Mapping[str, NDArray[np.float64]], epochs: NDArray[np.float64]) -> float | None:
    """The epoch of largest 0.1 mAP50 + 0.9 mAP50-95, whatever prefix and suffix the columns carry."""
    strict = next((values for name, values in columns.items() if "mAP50-95" in name or "mAP_0.5:0.95" in name), None)
    loose = next(
        (v for name, v in columns.items() if ("mAP50" in name and "-95" not in name) or name.endswith("mAP_0.5")), None
    )
    if strict is None or loose is None or not np.isfinite(strict).any():
        return None
    return float(epochs[int(np.nanargmax(0.1 * loose + 0.9 * strict))])


def plot_cliff(
    ratios: Sequence[float],
    map50: Sequence[float],
    map50_95: Sequence[float],
    path: str | Path,
    *,
    chosen: float | None = None,
    knee: float | None = None,
    x_label: str = "Share of channels removed (masked, not fine-tuned)",
) -> Path:
    """Accuracy of the masked detector against the pruning ratio: where the cliff is and where the plan stands.

    Args:
        ratios: shares, 0 to 1.
        map50, map50_95: accuracy at each ratio.
        path: picture to write.
        chosen: ratio of the plan.
        knee: ratio where accuracy starts to fall steeply.
        x_label: what the ratio counts.
    """
    order = np.argsort(ratios)
    x = np.asarray(ratios, dtype=float)[order]
    figure, (axis,) = new_figure(8, 5)
    top = 0.0
    for values, name, colour in ((map50, "mAP50", ACCENT), (map50_95, "mAP50-95", PALETTE[3])):
        y = np.asarray(values, dtype=float)[order]
        top = max(top, float(y.max(initial=0)))
        axis.plot(100 * x, y, color=colour, marker="o", markersize=4.5, linewidth=2, label=name)
        if chosen is not None and len(x):
            axis.plot([100 * chosen], [np.interp(chosen, x, y)], marker="D", color=SECOND, markersize=8, zorder=5)
    if knee is not None:
        axis.axvspan(100 * knee, 100 * max(x.max(initial=0), chosen or 0), color=PALETTE[2], alpha=0.13, linewidth=0)
        axis.axvline(100 * knee, color=PALETTE[2], linewidth=1.6, linestyle=(0, (4, 3)), label=f"knee {knee:.1%}")
    if chosen is not None:
        axis.axvline(100 * chosen, color=SECOND, linewidth=1.6, label=f"plan {chosen:.1%}")
    axis.set(xlabel=f"{x_label}, %", ylabel="mAP", ylim=(0, max(0.05, 1.08 * top)), title="Cliff curve")
    axis.set_xlim(0, 100 * max(x.max(initial=0), chosen or 0, 0.01) * 1.02)
    axis.legend(loc="best", frameon=False)
    return save_figure(figure, path)


def plot_gammas(
    gammas: Mapping[str, NDArray[np.floating[Any]]],
    path: str | Path,
    *,
    threshold: float | None = None,
    near_zero: float = 0.01,
) -> Path:
    """Histograms of |gamma| of the BatchNorm layers that can be pruned, on a logarithmic count.

    Args:
        gammas: name (for example "before", "after", "EMA") -> values.
        path: picture to write.
        threshold: a pruning threshold to mark.
        near_zero: values under this count as near zero in the legend.
    """
    sizes = {name: np.abs(np.asarray(values, dtype=float)).ravel() for name, values in gammas.items()}
    top = max([float(np.quantile(v, 0.999)) for v in sizes.values() if v.size] + [2 * (threshold or 0), 1e-3])
    bins = np.linspace(0, top, 81).tolist()
    figure, (axis,) = new_figure(8, 4.8)
    for number, (name, values) in enumerate(sizes.items()):
        colour = (ACCENT, SECOND, *PALETTE[2:])[number % len(PALETTE)]
        share = float((values < near_zero).mean()) if values.size else 0.0
        median = float(np.median(values)) if values.size else 0.0
        label = f"{name}: median {median:.3f}, {share:.1%} under {near_zero:g}"
        # Values beyond the last bin are gathered in it.
        clipped = values.clip(max=top)
        axis.hist(clipped, bins=bins, histtype="stepfilled", color=colour, alpha=0.25)
        axis.hist(clipped, bins=bins, histtype="step", color=colour, linewidth=1.6, label=label)
    if threshold is not None:
        axis.axvline(threshold, color=INK, linewidth=1.4, linestyle=(0, (4, 3)), label=f"threshold {threshold:.4g}")
    axis.set_yscale("log")
    axis.set(xlabel="|gamma|", ylabel="channels", xlim=(0, top), title="BatchNorm scales")
    axis.legend(loc="upper right", frameon=False)
    return save_figure(figure, path)
