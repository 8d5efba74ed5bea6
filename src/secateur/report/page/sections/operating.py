"""Precision and recall of every class at one fixed confidence, as in an application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from secateur.evaluation.record import DetectionRecord
from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Cell, Chart, ChartView, Choice, DataTable, Heading, Section, Trace
from secateur.report.page.detections import by_class, compared_records
from secateur.report.page.model import RunData

CONFIDENCES = (0.25, 0.1, 0.5)
"""Selectable confidences; the first is the default of `secateur predict`."""
_COLOURS = ("@removed", "@accent", "@violet")
_TITLE = "At a fixed confidence"
Rates = dict[str, tuple[int, float, float]]
"""Objects, precision and recall by class name; precision without any box is 1."""


def operating(runs: Sequence[RunData]) -> Section:
    """One figure per run."""
    blocks: list[Block] = []
    for run in runs:
        records = compared_records(run)[: len(_COLOURS)]
        if records:
            blocks += [Heading(run.label)] if len(runs) > 1 else []
            blocks.append(_chart(records))
    if not blocks:
        return Section("operating", _TITLE, absent="No run kept its detections (detections.npz).")
    lead = "An application uses one confidence threshold for all classes. Precision is the "
    lead += "share of boxes above it that match an object at IoU 0.5, recall the share of detected objects."
    return Section("operating", _TITLE, lead, blocks)


def rates_of(record: DetectionRecord, confidence: float) -> Rates:
    """Precision and recall of every class with objects."""
    return {
        record.names.get(number, str(number)): (objects, found / shown if shown else 1.0, found / objects)
        for number, (objects, shown, found) in by_class(record, confidence).items()
    }


def _chart(records: Sequence[tuple[str, DetectionRecord]]) -> Chart:
    rates = {c: [(title, rates_of(record, c)) for title, record in records] for c in CONFIDENCES}
    views = {
        f"{place}|{c}": replace(_view(rates[c], place, word), words=_summary(rates[c], c))
        for c in CONFIDENCES
        for place, word in ((2, "Recall"), (1, "Precision"))
    }
    choices = [
        Choice("Rate", [("2", "Recall"), ("1", "Precision")]),
        Choice("Confidence", [(str(c), f"{c:g}") for c in CONFIDENCES]),
    ]
    names = rates[CONFIDENCES[0]][0][1]
    height = min(1800, max(260, 120 + 16 * len(names) * (len(records) + 0.4)))
    first = rates[CONFIDENCES[0]]
    return Chart("Rates of every class", _summary(first, CONFIDENCES[0]), views, choices, round(height), _table(first))


def _view(rates: Sequence[tuple[str, Rates]], place: int, word: str) -> ChartView:
    traces: list[Trace] = [
        {
            "type": "bar", "orientation": "h", "name": title, "y": [_tick(name) for name in found],
            "x": [values[place] for values in found.values()], "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x:.3f}<extra>%{fullData.name}</extra>",
        }
        for (title, found), colour in zip(rates, _COLOURS, strict=False)
    ]  # fmt: skip
    layout = {
        "barmode": "group", "bargap": 0.3, "xaxis": {"title": word, "range": [0, 1]},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
    }  # fmt: skip
    return ChartView(traces, layout)


def _tick(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _table(rates: Sequence[tuple[str, Rates]]) -> DataTable:
    titles = ["Class", "Objects"]
    titles += [f"{word}, {title}" for word in ("Precision", "Recall") for title, _ in rates]
    rows: list[list[Cell | str]] = []
    for name, (objects, *_) in rates[0][1].items():
        line: list[Cell | str] = [name, f"{objects:,}"]
        for place in (1, 2):
            dense = rates[0][1][name][place]
            for number, (_, found) in enumerate(rates):
                value = found[name][place] if name in found else None
                change = say.signed(value - dense) if number and value is not None else ""
                line.append(Cell(say.score(value), change))
        rows.append(line)
    return DataTable(f"Rates at confidence {CONFIDENCES[0]:g}", titles, rows, folded=True)


def _summary(rates: Sequence[tuple[str, Rates]], confidence: float) -> str:
    parts = []
    for title, found in rates:
        objects = sum(count for count, *_ in found.values())
        recall = sum(count * r for count, _, r in found.values()) / max(objects, 1)
        precision = sum(p for _, p, _ in found.values()) / max(len(found), 1)
        parts.append(f"{title} detects {say.share(recall, 1)} of {objects:,} objects, mean precision {precision:.3f}")
    text = f"At confidence {confidence:g}, {'; '.join(parts)}."
    if len(rates) > 1:
        before, after = rates[0][1], rates[1][1]
        change, name = min((after[name][2] - before[name][2], name) for name in before if name in after)
        text += f" The least favourable change in recall is that of {name} ({say.signed(change)})."
    return text
