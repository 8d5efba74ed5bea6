"""Plots that steps write to their run folders; none without the `plots` extra."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.data.batches import TrainBatches
from secateur.data.index import Index
from secateur.errors import UserError
from secateur.evaluation.curves import Curves
from secateur.pruning.cliff import Cliff
from secateur.report.curve_plots import plot_evaluation
from secateur.report.data_plots import plot_batch, plot_labels
from secateur.report.figures import ACCENT, FAINT, PALETTE, SECOND, new_figure, plots_available, save_figure
from secateur.scores import Scores

_FIRST = ("train/", "metrics/", "val/")  # order of the panels; other columns follow


def draw_data(folder: Path, index: Index, batches: TrainBatches, names: dict[int, str]) -> None:
    """Plots label statistics and one training batch with its boxes."""
    if not plots_available():
        return
    plot_labels(index.labels, names, folder / "labels.png")
    batch = next(iter(batches.epoch(0)))
    plot_batch(batch.images.numpy(), batch.targets.numpy(), names, folder / "train_batch.png")


def draw_results(folder: Path, best_epoch: int = -1) -> None:
    """Plots losses and scores over the epochs, and the sizes that a sparse training reduces: scales (gamma.png),
    filters.png.

    Args:
        folder: folder of the training.
        best_epoch: epoch to mark; -1 marks none.
    """
    if not plots_available():
        return
    if (folder / "results.csv").exists():
        plot_results(folder / "results.csv", folder / "results.png", best_epoch=best_epoch)
    for name, what in (("gamma", "|gamma|"), ("filters", "mean |weight| of a filter")):
        if (folder / f"{name}.csv").exists():
            plot_sizes(folder / f"{name}.csv", folder / f"{name}.png", what=what)


def draw_evaluation(folder: Path, scores: Scores) -> None:
    """Plots the PR curve, the confidence curves and the confusion matrix of detections; other scores have no curves."""
    if isinstance(scores.curves, Curves) and plots_available():
        plot_evaluation(scores.curves, folder)


def draw_cliff(folder: Path, cliff: Cliff) -> None:
    """Plots the accuracy of the masked network against the share of removed channels."""
    if not plots_available():
        return
    points = cliff.points
    curves = {name: [point.scores.values[name] for point in points] for name in points[0].scores.judged_by}
    if any(point.corrected is not None for point in points):
        name = f"{points[0].scores.judged_by[0]}, norms corrected"
        curves[name] = [(point.corrected or point.scores).coarse_value for point in points]
    plot_cliff(
        [point.ratio for point in points],
        curves,
        folder / "cliff.png",
        chosen=next((point.ratio for point in points if point.chosen), None),
        knee=cliff.knee,
    )


def plot_results(csv_file: str | Path, path: str | Path, *, best_epoch: int = -1) -> Path:
    """Plots each column of results.csv against the epoch, one panel per column.

    Args:
        csv_file: a header and one row per epoch; spaces around names and values are ignored.
        path: file to write.
        best_epoch: epoch to mark, counted as in the column `epoch`; -1 marks none.

    Raises:
        UserError: the file cannot be read or has no rows.
    """
    columns = read_results(csv_file)
    epochs = columns.pop("epoch", np.arange(len(next(iter(columns.values())))).astype(float))
    names = sorted(columns, key=lambda name: next((i for i, p in enumerate(_FIRST) if name.startswith(p)), len(_FIRST)))
    names = [name for name in names if np.isfinite(columns[name]).any()]
    across = min(5, max(1, math.ceil(math.sqrt(1.6 * len(names)))))
    down = max(1, math.ceil(len(names) / across))
    figure, axes = new_figure(3.1 * across, 2.5 * down, down, across)
    for axis, name in zip(axes, names, strict=False):
        colour = SECOND if name.startswith("train/") else ACCENT if name.startswith("metrics/") else PALETTE[3]
        finite = np.isfinite(columns[name])
        marker = "." if finite.sum() < 30 else None
        axis.plot(epochs[finite], columns[name][finite], color=colour, linewidth=1.6, marker=marker)
        if best_epoch >= 0:
            axis.axvline(best_epoch, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axis.set_title(name, fontsize=10)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis in axes[max(0, len(names) - across) : len(names)]:
        axis.set_xlabel("epoch")
    if best_epoch >= 0:
        figure.suptitle(f"dashed: best epoch, {best_epoch}", fontsize=9, x=0.99, ha="right")
    return save_figure(figure, path)


def read_results(csv_file: str | Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a results.csv as numbers, float64 [epochs] each; non-numeric values become NaN.

    Raises:
        UserError: the file cannot be read or has no rows.
    """
    try:
        with Path(csv_file).open(newline="", encoding="utf-8") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {csv_file}: {error}.") from None
    if len(rows) < 2:
        raise UserError(f"{csv_file} contains no epochs yet.")
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


def plot_cliff(
    ratios: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    path: str | Path,
    *,
    chosen: float | None = None,
    knee: float | None = None,
    x_label: str = "Share of channels removed (masked, not fine-tuned)",
) -> Path:
    """Plots scores of the masked network against the pruning ratio, with the cliff and the plan marked.

    Args:
        ratios: shares, 0 to 1.
        curves: values at each ratio, by name.
        path: file to write.
        chosen: ratio of the plan.
        knee: ratio after which accuracy falls steeply.
        x_label: label of the ratio axis.
    """
    order = np.argsort(ratios)
    x = np.asarray(ratios, dtype=float)[order]
    figure, (axis,) = new_figure(8, 5)
    top = 0.0
    for (name, values), colour in zip(curves.items(), (ACCENT, *PALETTE[3:]), strict=False):
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
    axis.set(
        xlabel=f"{x_label}, %",
        ylabel="accuracy" if len(curves) > 1 else next(iter(curves)),
        ylim=(0, max(0.05, 1.08 * top)),
        title="Cliff curve",
    )
    axis.set_xlim(0, 100 * max(x.max(initial=0), chosen or 0, 0.01) * 1.02)
    axis.legend(loc="best", frameon=False)
    return save_figure(figure, path)


def plot_sizes(csv_file: str | Path, path: str | Path, *, what: str) -> Path:
    """Plots the sizes that a penalty reduces over a training: quantiles, shares near zero, and the penalty's rate.

    Args:
        csv_file: gamma.csv or filters.csv with the columns `epoch`, `rate`, and for `ema/` (the averaged weights, which
            are pruned) the quantiles q05 to q95 and the shares below_...
        path: file to write.
        what: label of the size axis.

    Raises:
        UserError: the file cannot be read or has no rows.
    """
    columns = read_results(csv_file)
    epochs = columns["epoch"] + 1
    figure, (sizes, shares) = new_figure(11, 4.6, 1, 2)
    marker = "o" if len(epochs) < 30 else None
    for low, high, opacity in (("q05", "q95", 0.15), ("q25", "q75", 0.3)):
        label = f"{low[1:]} % to {high[1:]} %"
        sizes.fill_between(
            epochs, columns[f"ema/{low}"], columns[f"ema/{high}"], color=ACCENT, alpha=opacity, linewidth=0, label=label
        )
    sizes.plot(epochs, columns["ema/q50"], color=ACCENT, linewidth=2, marker=marker, markersize=4, label="median")
    sizes.set(ylabel=what, ylim=(0, None), title="Sizes in the averaged weights")
    near = [name for name in columns if name.startswith("ema/below_")]
    for name, colour in zip(near, (SECOND, PALETTE[3], *PALETTE[4:]), strict=False):
        label = f"under {name.removeprefix('ema/below_')}"
        shares.plot(epochs, 100 * columns[name], color=colour, linewidth=2, marker=marker, markersize=4, label=label)
    rate = columns["rate"] / max(float(np.nanmax(columns["rate"])), 1e-30)
    label = f"rate, of {np.nanmax(columns['rate']):.3g}"
    shares.plot(epochs, 100 * rate, color=FAINT, linewidth=1.6, linestyle=(0, (4, 3)), label=label)
    shares.set(ylabel="%", ylim=(0, 105), title="Near zero")
    for axis in (sizes, shares):
        axis.set_xlabel("epoch")
        axis.legend(loc="best", frameon=False)
    return save_figure(figure, path)
