"""Learning curves of all trainings of a run, and the sizes that a penalty reduced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secateur.errors import UserError
from secateur.report.page import wording as say
from secateur.report.page.blocks import Chart, ChartView, Choice, Section, Trace
from secateur.report.page.model import TRAININGS, RunData
from secateur.report.run_folder_plots import read_results

_WORDS = {
    "metrics/mAP_0.5:0.95": "mAP50-95", "metrics/mAP_0.5": "mAP50", "metrics/precision": "P", "metrics/recall": "R",
    "val/loss": "held-out loss", "train/box_loss": "training, boxes", "train/cls_loss": "training, classes",
}  # fmt: skip
_FIRST = ("metrics/mAP_0.5:0.95", "metrics/mAP_0.5", "val/loss")
Results = dict[str, "np.ndarray[tuple[int], np.dtype[np.float64]]"]


def training(runs: Sequence[RunData]) -> Section:
    """One figure with a choice of the quantity."""
    found = [(name, results) for run in runs for name, results in trainings_of(run, len(runs) > 1)]
    if not found:
        return Section("training", "Learning curves", absent="No run trained a network (no results.csv).")
    names = list(dict.fromkeys(name for _, results in found for name in results if name != "epoch"))
    names = [name for name in names if any(_drawn(results, name) for _, results in found)]
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    if not names:
        return Section("training", "Learning curves", absent="No training has completed an epoch yet.")
    views = {name: _view(found, name) for name in names}
    choice = Choice("Quantity", [(name, _WORDS.get(name, name)) for name in names])
    summary = " ".join(_sentence(name, results) for name, results in found)
    return Section(
        "training", "Learning curves", "", [Chart("Scores and losses over the epochs", summary, views, [choice])]
    )


def trainings_of(run: RunData, several: bool) -> list[tuple[str, Results]]:
    """The columns of every results.csv of a run, by the name of its folder; each float64 [epochs]."""
    found = []
    for file in run.files("results.csv"):
        try:
            results = read_results(file)
        except UserError as error:
            run.unreadable.append(str(error))
            continue
        name = _name(file, run)
        found.append((f"{run.label}: {name}" if several else name, results))
    return found


def _name(file: Path, run: RunData) -> str:
    folder = file.parent
    return folder.name if folder != run.folder else run.command if run.command in TRAININGS else run.label


def _drawn(results: Results, name: str) -> bool:
    return name in results and bool(np.isfinite(results[name]).any())


def _view(found: Sequence[tuple[str, Results]], quantity: str) -> ChartView:
    traces: list[Trace] = []
    for place, (name, results) in enumerate(found):
        if not _drawn(results, quantity):
            continue
        values = results[quantity]
        known = np.isfinite(values)
        epochs = results.get("epoch", np.arange(len(values)))[known]
        traces.append({
            "type": "scatter", "mode": "lines+markers" if known.sum() <= 40 else "lines", "name": name,
            "x": (epochs + 1).tolist(), "y": values[known].tolist(), "marker": {"size": 4},
            "line": {"color": f"@c{place % 8}", "width": 2},
            "hovertemplate": "epoch %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
        })  # fmt: skip
    title = _WORDS.get(quantity, quantity)
    return ChartView(traces, {"xaxis": {"title": "Epoch", "rangemode": "tozero"}, "yaxis": {"title": title}})


def _sentence(name: str, results: Results) -> str:
    epochs = len(next(iter(results.values())))
    for quantity, best in (("metrics/mAP_0.5:0.95", np.nanmax), ("val/loss", np.nanmin)):
        if _drawn(results, quantity):
            value = float(best(results[quantity]))
            at = int(np.flatnonzero(results[quantity] == value)[0])
            return f"{name}: {say.counted(epochs, 'epoch')}, best {_WORDS[quantity]} {value:.3f} in epoch {at + 1}."
    return f"{name}: {say.counted(epochs, 'epoch')}."
