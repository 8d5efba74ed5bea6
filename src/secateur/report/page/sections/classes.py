"""The accuracy of every class before and after pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Cell, Chart, ChartView, Choice, DataTable, Heading, Section, Trace
from secateur.report.page.model import RunData, Stage, number

_COUNTS = {"class", "name", "images", "instances"}


def classes(runs: Sequence[RunData]) -> Section:
    """One figure per run with a pair of bars per class."""
    blocks: list[Block] = []
    for run in runs:
        stage = run.final or run.dense
        if run.dense is None or stage is None or not stage.classes:
            continue
        blocks += [Heading(run.label)] if len(runs) > 1 else []
        blocks.append(_chart(run.dense, stage))
    if not blocks:
        return Section("classes", "Classes", absent="No run recorded scores by class.")
    return Section("classes", "Classes", "Every class of the validation split, before and after.", blocks)


def _chart(dense: Stage, final: Stage) -> Chart:
    rows = list(final.classes)
    measures = [key for key in reversed(list(rows[0])) if key not in _COUNTS and number(rows[0][key]) is not None]
    before = {row["name"]: row for row in dense.classes}
    changed = final is not dense
    views = {
        key: replace(
            _view(rows, before if changed else {}, key, dense.title, final.title),
            words=_summary(rows, before, key, changed),
        )
        for key in measures
    }
    table = _table(rows, before if changed else {}, measures)
    height = min(1800, max(260, 120 + 34 * len(rows)))
    summary = _summary(rows, before, measures[0], changed)
    choices = [Choice("Score", [(key, key) for key in measures])]
    return Chart("Scores by class", summary, views, choices, height, table)


def _view(
    rows: Sequence[Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]], key: str, first: str, last: str
) -> ChartView:
    names = [_tick(row["name"]) for row in rows]
    traces: list[Trace] = []
    hover = "%{y}: %{x:.3f}<extra>%{fullData.name}</extra>"
    shared = {"type": "bar", "orientation": "h", "y": names, "hovertemplate": hover}
    if before:
        values = [before.get(row["name"], {}).get(key) for row in rows]
        traces.append(shared | {"name": first, "x": values, "marker": {"color": "@removed"}})
    traces.append(shared | {"name": last, "x": [row.get(key) for row in rows], "marker": {"color": "@accent"}})
    layout = {
        "barmode": "group", "bargap": 0.3, "xaxis": {"title": key, "range": [0, 1]},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
    }  # fmt: skip
    return ChartView(traces, layout)


def _tick(name: object) -> str:
    text = str(name)
    return text if len(text) <= 24 else f"{text[:23]}…"


def _table(
    rows: Sequence[Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]], measures: Sequence[str]
) -> DataTable:
    counts = [key for key in rows[0] if key in {"images", "instances"}]
    cells: list[list[Cell | str]] = []
    for row in rows:
        line: list[Cell | str] = [str(row["name"]), *(f"{row[key]:,}" for key in counts)]
        for key in reversed(measures):
            first = number(before.get(row["name"], {}).get(key))
            value = number(row.get(key))
            change = say.signed(value - first) if first is not None and value is not None else ""
            line.append(Cell(say.score(value), change))
        cells.append(line)
    return DataTable("Scores of every class", ["Class", *counts, *reversed(measures)], cells, folded=True)


def _summary(
    rows: Sequence[Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]], key: str, changed: bool
) -> str:
    if not changed:
        best = max(rows, key=lambda row: number(row[key]) or 0)
        worst = min(rows, key=lambda row: number(row[key]) or 0)
        return (
            f"{key} is highest for {best['name']} ({best[key]:.3f}) and lowest for {worst['name']} ({worst[key]:.3f})."
        )
    changes = [(row[key] - before[row["name"]][key], row) for row in rows if row["name"] in before]
    if not changes:
        return f"{key} of {say.counted(len(rows), 'class')}."
    change, row = min(changes, key=lambda pair: pair[0])
    verb = "loses most" if change < 0 else "gains least"
    text = (
        f"Of {say.counted(len(rows), 'class')}, {row['name']} {verb}: {key} {before[row['name']][key]:.3f} before and "
    )
    gained, other = max(changes, key=lambda pair: pair[0])
    text += f"{row[key]:.3f} after."
    if len(rows) > 1 and gained > change:
        text += f" The most favourable change is that of {other['name']} ({say.signed(gained)})."
    return text
