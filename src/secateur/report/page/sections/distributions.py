"""Distributions: scales during training with a penalty, and scores of kept and removed units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secateur.errors import UserError
from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Chart, ChartView, Heading, Section, Trace
from secateur.report.page.model import RunData
from secateur.report.run_folder_plots import read_results

_WHAT = {"gamma.csv": "|gamma|", "filters.csv": "mean |weight| of a filter"}


def distributions(runs: Sequence[RunData]) -> Section:
    """Figures of every run that recorded a distribution."""
    blocks: list[Block] = []
    for run in runs:
        charts = [*_sizes(run), *_scores(run)]
        if charts:
            blocks += [Heading(run.label)] if len(runs) > 1 else []
            blocks += charts
    if not blocks:
        return Section(
            "distributions", "Distributions", absent=("No run trained with a penalty or recorded unit scores.")
        )
    return Section("distributions", "Scales and scores", "", blocks)


def _sizes(run: RunData) -> list[Chart]:
    charts = []
    for file in (file for name in _WHAT for file in run.files(name)):
        try:
            columns = read_results(file)
        except UserError as error:
            run.unreadable.append(str(error))
            continue
        if {"epoch", "ema/q05", "ema/q50", "ema/q95"} <= columns.keys():
            where = f" ({file.parent.name})" if file.parent != run.folder else ""
            charts.append(_sizes_chart(columns, _WHAT[file.name], where))
    return charts


def _sizes_chart(columns: dict[str, Any], what: str, where: str) -> Chart:
    epochs = (columns["epoch"] + 1).tolist()
    traces: list[Trace] = []
    for low, high, shade in (("q05", "q95", "@band1"), ("q25", "q75", "@band2")):
        if f"ema/{low}" not in columns or f"ema/{high}" not in columns:
            continue
        base = {"type": "scatter", "mode": "lines", "line": {"width": 0, "color": shade}, "x": epochs}
        traces.append(base | {"y": columns[f"ema/{low}"].tolist(), "showlegend": False, "hoverinfo": "skip"})
        traces.append(base | {"y": columns[f"ema/{high}"].tolist(), "fill": "tonexty", "fillcolor": shade,
                              "name": f"{int(low[1:])} to {high[1:]} %", "hoverinfo": "skip"})  # fmt: skip
    median = columns["ema/q50"]
    traces.append({
        "type": "scatter", "mode": "lines", "name": "median", "x": epochs, "y": median.tolist(),
        "line": {"color": "@accent", "width": 2.2}, "hovertemplate": "epoch %{x}: %{y:.4g}<extra>median</extra>",
    })  # fmt: skip
    summary = f"The median decreases from {say.plain(float(median[0]))} to {say.plain(float(median[-1]))}"
    low = columns["ema/q05"]
    summary += f", the lowest 5 % from below {say.plain(float(low[0]))} to below {say.plain(float(low[-1]))}."
    layout = {"xaxis": {"title": "Epoch"}, "yaxis": {"title": what, "rangemode": "tozero"}}
    return Chart(f"{what} over the training{where}", summary, {"": ChartView(traces, layout)})


def _scores(run: RunData) -> list[Chart]:
    """Histograms of the logarithms of the scores, kept and removed units."""
    found = run.json("scores.json")
    if not isinstance(found, dict) or not found.get("scores") or len(found["scores"]) != len(found.get("kept") or []):
        return []
    scores, kept = np.asarray(found["scores"], dtype=float), np.asarray(found["kept"], dtype=bool)
    positive = scores[scores > 0]
    if not positive.size:
        return []
    # Scores span many powers of ten; zeros are shown at the low end.
    floor = float(np.quantile(positive, 0.002)) / 2
    logs = np.log10(np.maximum(scores, floor))
    edges = np.linspace(logs.min(), logs.max() + 1e-9, 61)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    traces: list[Trace] = [
        {"type": "bar", "name": name, "x": middle, "y": np.histogram(logs[mask], edges)[0].tolist(),
         "marker": {"color": colour}, "hovertemplate": "10^%{x:.1f}: %{y} units<extra>%{fullData.name}</extra>"}
        for name, mask, colour in (("kept", kept, "@accent"), ("removed", ~kept, "@removed"))
    ]  # fmt: skip
    layout = {
        "barmode": "stack", "bargap": 0.04, "xaxis": {"title": "Score (power of ten)"}, "yaxis": {"title": "Units"},
    }  # fmt: skip
    medians = [float(np.median(scores[mask])) if mask.any() else None for mask in (kept, ~kept)]
    summary = f"{int(kept.sum()):,} of {len(kept):,} units are kept. The median score of kept units is "
    summary += f"{say.plain(medians[0])}, that of removed ones {say.plain(medians[1])}."
    criterion = f" ({found['criterion']})" if found.get("criterion") else ""
    return [Chart(f"Scores of the units{criterion}", summary, {"": ChartView(traces, layout)})]
