"""The plots that steps leave in their run folders; without the `plots` extra there are none."""

from __future__ import annotations

from pathlib import Path

from secateur.data.batches import TrainBatches
from secateur.data.index import Index
from secateur.evaluation.curves import Curves
from secateur.pruning.cliff import Cliff
from secateur.report.curve_plots import plot_evaluation
from secateur.report.data_plots import plot_batch, plot_labels
from secateur.report.figures import plots_available
from secateur.report.run_plots import plot_cliff, plot_results, plot_sizes
from secateur.scores import Scores


def draw_data(folder: Path, index: Index, batches: TrainBatches, names: dict[int, str]) -> None:
    """Label statistics and one training batch with its boxes."""
    if not plots_available():
        return
    plot_labels(index.labels, names, folder / "labels.png")
    batch = next(iter(batches.epoch(0)))
    plot_batch(batch.images.numpy(), batch.targets.numpy(), names, folder / "train_batch.png")


def draw_results(folder: Path, best_epoch: int = -1) -> None:
    """Losses and scores over the epochs, and what a sparse training shrank: scales (gamma.png), filters.png.

    Args:
        best_epoch: is marked; -1 marks none.
    """
    if not plots_available():
        return
    if (folder / "results.csv").exists():
        plot_results(folder / "results.csv", folder / "results.png", best_epoch=best_epoch)
    for name, what in (("gamma", "|gamma|"), ("filters", "mean |weight| of a filter")):
        if (folder / f"{name}.csv").exists():
            plot_sizes(folder / f"{name}.csv", folder / f"{name}.png", what=what)


def draw_evaluation(folder: Path, scores: Scores) -> None:
    """PR curve, confidence curves and confusion matrix of detections; other scores have no curves."""
    if isinstance(scores.curves, Curves) and plots_available():
        plot_evaluation(scores.curves, folder)


def draw_cliff(folder: Path, cliff: Cliff) -> None:
    """Accuracy of the masked model against the share of channels removed."""
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
