"""The candidates of a width search: their scores, and their shares of the dense network's cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.report.page import wording as say
from secateur.report.page.blocks import Chart, ChartView, Trace
from secateur.report.page.model import RunData, number

_LOOKS = {"threshold": ("@ink", "square"), "random": ("@faint", "circle-open"), "evolved": ("@accent", "circle")}
_WORST = -1e300
"""Fitness that a search records for a candidate without a score."""


def search_charts(runs: Sequence[RunData]) -> list[Chart]:
    """One figure per run with a search. Scores are on training images, so they have a plot of their own."""
    charts = []
    for run in runs:
        found = run.json("search.json")
        entries = found.get("candidates") if isinstance(found, dict) else None
        known = [entry for entry in entries or [] if isinstance(entry, dict) and _usable(entry)]
        if known:
            charts.append(_chart(known, f" of {run.label}" if len(runs) > 1 else ""))
    return charts


def _usable(entry: Mapping[str, Any]) -> bool:
    fitness = number(entry.get("fitness"))
    return fitness is not None and fitness > _WORST and number(entry.get("share")) is not None


def _chart(entries: Sequence[Mapping[str, Any]], of_run: str) -> Chart:
    traces: list[Trace] = []
    for origin, (colour, symbol) in _LOOKS.items():
        mine = [(place, entry) for place, entry in enumerate(entries, 1) if entry.get("origin") == origin]
        if mine:
            traces.append({
                "type": "scatter", "mode": "markers", "name": origin,
                "x": [100 * entry["share"] for _, entry in mine], "y": [entry["fitness"] for _, entry in mine],
                "customdata": [place for place, _ in mine], "marker": {"color": colour, "symbol": symbol, "size": 9},
                "hovertemplate": "candidate %{customdata}: %{y:.3f} at %{x:.1f} %<extra>%{fullData.name}</extra>",
            })  # fmt: skip
    best = max(entries, key=lambda entry: entry["fitness"])
    place = [entry is best for entry in entries].index(True) + 1
    summary = f"Of {say.counted(len(entries), 'candidate')}, number {place} ({best.get('origin')}) is best with "
    summary += (
        f"{best['fitness']:.3f}. The first one, with one threshold for all layers, has {entries[0]['fitness']:.3f}."
    )
    layout = {
        "xaxis": {"title": "Remaining cost (%)"}, "yaxis": {"title": "Score on training images"},
    }  # fmt: skip
    return Chart(f"Candidates of the search{of_run}", summary, {"": ChartView(traces, layout)}, height=340)
