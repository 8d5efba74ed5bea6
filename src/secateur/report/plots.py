"""All plots by name; each takes arrays or files, writes one picture (kind by suffix) and returns its path."""

from __future__ import annotations

from secateur.report.curve_plots import plot_confidence, plot_confusion, plot_evaluation, plot_precision_recall
from secateur.report.data_plots import plot_batch, plot_labels
from secateur.report.figures import plots_available
from secateur.report.run_plots import plot_cliff, plot_gammas, plot_results

__all__ = [
    "plot_batch",
    "plot_cliff",
    "plot_confidence",
    "plot_confusion",
    "plot_evaluation",
    "plot_gammas",
    "plot_labels",
    "plot_precision_recall",
    "plot_results",
    "plots_available",
]
