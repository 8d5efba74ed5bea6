"""The pictures that stages leave in their run folders; without the `plots` extra there are none."""

from __future__ import annotations

from pathlib import Path

from secateur.data.batches import TrainBatches
from secateur.data.index import Index
from secateur.evaluation.metrics import Metrics
from secateur.pruning.cliff import Cliff
from secateur.report.curve_plots import plot_evaluation
from secateur.report.data_plots import plot_batch, plot_labels
from secateur.report.figures import plots_available
from secateur.report.run_plots import plot_cliff, plot_results, plot_sizes


def draw_data(folder: Path, index: Index, batches: TrainBatches, names: dict[int, str]) -> None:
    """Label statistics and one training batch with its boxes."""
    if not plots_available():
        return
    plot_labels(index.labels, names, folder / "labels.png")
    batch = next(iter(batches.epoch(0)))
    plot_batch(batch.images.numpy(), batch.targets.numpy(), names, folder / "train_batch.png")


def draw_results(folder: Path) -> None:
    """Losses and metrics over the epochs, and what a sparse training shrank: scales (gamma.png), filters.png."""
    if not plots_available():
        return
    if (folder / "results.csv").exists():
        plot_results(folder / "results.csv", folder / "results.png")
    for name, what in (("gamma", "|gamma|"), ("filters", "mean |weight| of a filter")):
        if (folder / f"{name}.csv").exists():
            plot_sizes(folder / f"{name}.csv", folder / f"{name}.png", what=what)


def draw_evaluation(folder: Path, metrics: Metrics) -> None:
    """PR curve, confidence curves, confusion matrix."""
    if plots_available() and metrics.curves is not None:
        plot_evaluation(metrics.curves, folder)


def draw_cliff(folder: Path, cliff: Cliff) -> None:
    """Accuracy of the masked model against the share of channels removed."""
    if plots_available():
        plot_cliff(
            [point.ratio for point in cliff.points],
            [point.mAP50 for point in cliff.points],
            [point.mAP50_95 for point in cliff.points],
            folder / "cliff.png",
            chosen=next((point.ratio for point in cliff.points if point.chosen), None),
            knee=cliff.knee,
            corrected=[point.mAP50 if point.corrected is None else point.corrected for point in cliff.points]
            if any(point.corrected is not None for point in cliff.points)
            else None,
        )
