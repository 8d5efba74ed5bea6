"""Plots of an evaluation: precision-recall, precision, recall and F1 against confidence, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.evaluation.curves import Curves
from secateur.report.figures import FAINT, INK, SECOND, class_colour, new_figure, save_figure, short

_MANY = 20  # with more classes, only the extremes are coloured and named
_EXTREMES = 5


def plot_evaluation(curves: Curves, folder: str | Path) -> list[Path]:
    """Writes PR_curve, F1_curve, P_curve, R_curve and confusion_matrix (png) to a folder and returns their paths."""
    folder = Path(folder)
    confidence = [("F1", curves.f1), ("Precision", curves.precision), ("Recall", curves.recall)]
    return [
        plot_precision_recall(curves, folder / "PR_curve.png"),
        *(plot_confidence(curves, values, word, folder / f"{word[:2] if word == 'F1' else word[0]}_curve.png")
          for word, values in confidence),
        plot_confusion(curves.confusion, curves.all_names, folder / "confusion_matrix.png"),
    ]  # fmt: skip


def plot_precision_recall(curves: Curves, path: str | Path) -> Path:
    """Plots precision against recall at IoU 0.5: one line per class, and the mean."""
    scores = curves.precision_at_recall.mean(axis=1)
    figure, axis = _frame("Recall", "Precision", "Precision and recall at IoU 0.5")
    overall = f"all classes {scores.mean() if scores.size else 0:.3f} {curves.area}"
    _lines(axis, curves.recall_axis, curves.precision_at_recall, curves, scores, overall)
    _legend(axis)
    return save_figure(figure, path)


def plot_confidence(curves: Curves, values: NDArray[np.float64], word: str, path: str | Path) -> Path:
    """Plots one metric, float64 [classes, points], against confidence; the confidence with the best mean F1 is
    marked.
    """
    figure, axis = _frame("Confidence", word, f"{word} at IoU 0.5 against confidence")
    at_best = values[:, curves.best] if values.size else np.zeros(0)
    best = curves.confidence[curves.best]
    mean = at_best.mean() if at_best.size else 0
    _lines(axis, curves.confidence, values, curves, at_best, f"all classes {mean:.2f} at {best:.3f}")
    axis.axvline(best, color=SECOND, linewidth=1, linestyle=(0, (4, 3)), label="best mean F1")
    _legend(axis)
    return save_figure(figure, path)


def plot_confusion(matrix: NDArray[np.int64], names: Sequence[str], path: str | Path) -> Path:
    """Plots the confusion matrix; each column (true class) is normalised to shares of its objects.

    Args:
        matrix: int64 [nc + 1, nc + 1] counts; rows predicted, columns true, background last.
        names: names of the nc classes.
        path: file to write.
    """
    shares = matrix / np.maximum(matrix.sum(axis=0, keepdims=True), 1)
    count = len(names)
    labels = [short(name) for name in names] + ["background"]
    side = min(18.0, max(6.0, 3 + 0.19 * (count + 1), 2.5 + 0.75 * min(count + 1, 12)))
    figure, (axis,) = new_figure(side * 1.1, side)
    heat_map = axis.imshow(np.where(shares < 0.005, np.nan, shares), cmap="Blues", vmin=0, vmax=1)
    size = 10 if count <= 12 else max(4.0, 30 * side / (count + 1) / 1.6)
    axis.set_xticks(range(count + 1), labels, rotation=0 if count <= 4 else 90, fontsize=min(size, 10))
    axis.set_yticks(range(count + 1), labels, fontsize=min(size, 10))
    axis.set(xlabel="True class", ylabel="Predicted class")
    axis.set_title("Confusion at confidence 0.25, IoU 0.45 (shares of each true class)")
    axis.grid(False)
    if count <= 30:
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            colour = "white" if shares[row, column] > 0.55 else INK
            text = f"{shares[row, column]:.2f}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=min(size, 10) * 0.9)
    else:
        axis.set_xticks(np.arange(count + 2) - 0.5, minor=True)
        axis.set_yticks(np.arange(count + 2) - 0.5, minor=True)
        axis.grid(True, which="minor", color="#eef0f2", linewidth=0.3)
        axis.tick_params(which="minor", length=0)
    figure.colorbar(heat_map, ax=axis, shrink=0.7)
    return save_figure(figure, path)


def _frame(x: str, y: str, title: str) -> tuple[Any, Any]:
    figure, (axis,) = new_figure(9, 6)
    axis.set(xlabel=x, ylabel=y, title=title, xlim=(0, 1), ylim=(0, 1.02))
    return figure, axis


def _lines(
    axis: Any,
    x: NDArray[np.float64],
    values: NDArray[np.float64],
    curves: Curves,
    scores: NDArray[np.float64],
    overall: str,
) -> None:
    """Draws one line per class and the mean. With many classes, only the best and worst by `scores` (float64 [classes])
    are coloured and named. `x` is float64 [points], `values` float64 [classes, points].
    """
    count = len(values)
    order = np.argsort(-scores, kind="stable")
    named = set(order.tolist()) if count <= _MANY else {*order[:_EXTREMES].tolist(), *order[-_EXTREMES:].tolist()}
    for row in sorted(set(range(count)) - named):
        axis.plot(x, values[row], color=FAINT, linewidth=0.6, alpha=0.7)
    for rank, row in enumerate(order):
        if row in named:
            if count > _MANY and rank == count - _EXTREMES:
                axis.plot([], [], color=FAINT, label=f"… {count - 2 * _EXTREMES} more classes …")
            colour = class_colour(curves.classes[row])
            label = f"{short(curves.names[row])} {scores[row]:.3f}"
            axis.plot(x, values[row], color=colour, linewidth=1.2, label=label)
    if count:
        axis.plot(x, values.mean(axis=0), color=INK, linewidth=2.8, label=overall)


def _legend(axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        axis.figure.legend(handles, labels, loc="outside right upper", fontsize=8.5, frameon=False)
