"""Precision-recall curves and confusion matrices, from the recorded detections of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.evaluation.curves import Curves
from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Chart, ChartView, Choice, Heading, Section, Trace
from secateur.report.page.detections import compared_records, curves_of
from secateur.report.page.model import RunData

_MOST_CLASSES = 60
"""Maximum number of classes with individual curves; with more, only the mean is drawn."""
_MOST_NUMBERED = 15
"""Maximum number of classes for which the cells of the matrix show numbers."""
_ALL = "all classes"


def curves(runs: Sequence[RunData]) -> Section:
    """Two figures per run."""
    blocks: list[Block] = []
    for run in runs:
        found = [(title, curves_of(record)) for title, record in compared_records(run)]
        found = [(title, curve) for title, curve in found if len(curve.classes)]
        if found:
            blocks += [Heading(run.label)] if len(runs) > 1 else []
            blocks += [_precision_recall(found), _confusion(found)]
    if not blocks:
        return Section("curves", "Precision and recall", absent="No run kept its detections (detections.npz), so there "
                       "are no curves and no confusion matrices.")  # fmt: skip
    return Section("curves", "Precision and recall", "", blocks)


def _precision_recall(found: Sequence[tuple[str, Curves]]) -> Chart:
    first = found[0][1]
    names = list(first.names) if len(first.names) <= _MOST_CLASSES else []
    views = {"-1": _curve_view(found, None)} | {
        str(place): _curve_view(found, name) for place, name in enumerate(names)
    }
    options = [("-1", _ALL), *((str(place), name) for place, name in enumerate(names))]
    summary = views["-1"].words
    return Chart("Precision against recall at IoU 0.5", summary, views, [Choice("Class", options)], 420)


def _curve_view(found: Sequence[tuple[str, Curves]], name: str | None) -> ChartView:
    traces: list[Trace] = []
    for place, (title, curve) in enumerate(found):
        if name is None:
            values = curve.precision_at_recall.mean(axis=0)
        elif name in curve.names:
            values = curve.precision_at_recall[curve.names.index(name)]
        else:
            continue
        line = {"color": f"@c{place - 1}" if place else "@ink", "width": 2.2, "dash": "solid" if place else "dot"}
        traces.append({
            "type": "scatter", "mode": "lines", "name": title, "x": curve.recall_axis.tolist(),
            "y": np.round(values, 4).tolist(), "line": line,
            "hovertemplate": "recall %{x:.2f}: %{y:.3f}<extra>%{fullData.name}</extra>",
        })  # fmt: skip
    layout = {"xaxis": {"title": "Recall", "range": [0, 1]}, "yaxis": {"title": "Precision", "range": [0, 1.02]}}
    areas = [f"{sum(trace['y']) / len(trace['y']):.3f} for {trace['name']}" for trace in traces]
    what = f"mean curve ({found[0][1].area})" if name is None else f"curve of {name}"
    return ChartView(traces, layout, f"The area under the {what} is {say.joined(areas)}.")


def _confusion(found: Sequence[tuple[str, Curves]]) -> Chart:
    views = {str(place): _matrix_view(curve) for place, (_, curve) in enumerate(found)}
    choice = Choice("Network", [(str(place), title) for place, (title, _) in enumerate(found)])
    count = len(found[0][1].all_names) + 1
    height = min(900, max(340, 150 + 34 * count))
    summary = " ".join(_matrix_sentence(title, curve) for title, curve in found)
    title = "Confusion at confidence 0.25 and IoU 0.45: shares of each true class"
    return Chart(title, summary, views, [choice], height)


def _matrix_view(curve: Curves) -> ChartView:
    shares = curve.confusion / np.maximum(curve.confusion.sum(axis=0, keepdims=True), 1)
    names = [name if len(name) <= 18 else f"{name[:17]}…" for name in [*curve.all_names, "background"]]
    numbered = len(names) <= _MOST_NUMBERED + 1
    text = [[f"{value:.2f}" if value >= 0.005 else "" for value in row] for row in shares]
    labels = [f"{place} {name}" if names.count(name) > 1 else name for place, name in enumerate(names)]
    counts = curve.confusion.tolist()
    trace: Trace = {
        "type": "heatmap", "z": np.round(shares, 4).tolist(), "x": labels, "y": labels, "zmin": 0, "zmax": 1,
        "colorscale": [[0, "@panel"], [1, "@accent"]], "showscale": False, "xgap": 1, "ygap": 1, "customdata": counts,
        "hovertemplate": "true %{x}, predicted %{y}: %{customdata} (%{z:.1%})<extra></extra>",
    }  # fmt: skip
    if numbered:
        trace |= {"text": text, "texttemplate": "%{text}"}
    axis = {"type": "category", "showgrid": False, "ticks": ""}
    layout = {
        "xaxis": axis | {"title": "True class"},
        "yaxis": axis | {"title": "Predicted class", "autorange": "reversed"},
    }
    return ChartView([trace], layout)


def _matrix_sentence(title: str, curve: Curves) -> str:
    matrix = curve.confusion
    objects = int(matrix[:, :-1].sum())
    right, missed, spurious = int(np.trace(matrix[:-1, :-1])), int(matrix[-1, :-1].sum()), int(matrix[:-1, -1].sum())
    wrong, verb = objects - right - missed, "finds" if spurious == 1 else "find"
    return (
        f"{title}: of {say.counted(objects, 'object')}, {right:,} are detected with their class, {wrong:,} "
        f"with another, and {missed:,} are missed; {say.counted(spurious, 'box')} {verb} no object."
    )
