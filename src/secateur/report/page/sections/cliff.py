"""The cliff curve: accuracy against the share of removed channels, masked and corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.report.page import wording as say
from secateur.report.page.blocks import Chart, ChartView, DataTable, Section, Trace
from secateur.report.page.model import RunData, number

_WORDS = {"mAP50": "mAP50", "mAP50_95": "mAP50-95"}
Curve = list[tuple[float, float]]


def cliff(runs: Sequence[RunData]) -> Section:
    """One figure over all runs with a cliff curve."""
    found = [(run, curves) for run in runs if (curves := curves_of(run))]
    if not found:
        reason = (
            "no run measured a cliff curve. prune and run measure one if a data set is given; sweep measures any "
            "ratios."
        )
        return Section("cliff", "Cliff curve", absent=f"This section is omitted: {reason}")
    single = len(found) == 1
    traces: list[Trace] = []
    marks: list[tuple[dict[str, Any], dict[str, Any]]] = []
    sentences, rows = [], []
    for place, (run, curves) in enumerate(found):
        prefix = "" if single else f"{run.label}: "
        for number_, (name, points) in enumerate(curves.items()):
            traces.append(_trace(f"{prefix}{name}", points, place if not single else number_, number_, single))
            rows += [[f"{prefix}{name}", say.share(x, 1), say.score(y)] for x, y in points]
        chosen, knee = _chosen(run), _knee(run)
        if single:
            left = knee is None or (chosen is not None and chosen < knee)
            marks += [_line(knee, "@amber", "knee", left=not left)] if knee is not None else []
            marks += [_line(chosen, "@accent", "plan", left=left)] if chosen is not None else []
        sentences.append(_sentence(run, curves, chosen, knee, prefix))
    layout = {
        "xaxis": {"title": "Channels removed (%)", "rangemode": "tozero", "ticksuffix": ""},
        "yaxis": {"title": "Accuracy", "rangemode": "tozero"},
        "shapes": [shape for shape, _ in marks],
        "annotations": [note for _, note in marks],
        "legend": {"y": 1.1},
    }
    table = DataTable("Points of the curves", ["Curve", "Removed", "Accuracy"], rows, folded=True)
    chart = Chart(
        "Accuracy against the share of removed channels",
        " ".join(sentences),
        {"": ChartView(traces, layout)},
        table=table,
    )
    lead = (
        "How many channels can be removed before accuracy falls. Masked: the network right after the cut. "
        "Corrected: the same "
    )
    lead += "network with corrected norm statistics, which takes seconds and no training."
    return Section("cliff", "Cliff curve", lead, [chart])


def curves_of(run: RunData) -> dict[str, Curve]:
    """Curves by name, (share removed, accuracy), from cliff.json or from a sweep; empty without either."""
    found = run.json("cliff.json")
    if isinstance(found, dict) and found.get("points"):
        return _cliff_curves(found["points"])
    rows = run.summary.get("table") if run.command == "sweep" else None
    return _sweep_curves(rows) if rows else {}


def _cliff_curves(points: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    names = [name for name in points[0] if name not in {"ratio", "parameters", "flops", "chosen", "corrected"}]
    curves = {f"{_WORDS.get(name, name)}, masked": _values(points, "ratio", name) for name in names}
    corrected = _values(points, "ratio", "corrected")
    if corrected:
        # The dense network needs no correction, so the corrected curve starts at the same point.
        start = _values(points[:1], "ratio", names[0])
        curves[f"{_WORDS.get(names[0], names[0])}, corrected"] = sorted({*start, *corrected})
    return {name: curve for name, curve in curves.items() if curve}


def _sweep_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    known = {"percent", "removed", "parameters", "gflops"}
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in known]
    words = {"cut_": "cut", "tuned_": "fine-tuned"}
    curves = {}
    for name in names:
        prefix = next((prefix for prefix in words if name.startswith(prefix)), "")
        title = f"{name.removeprefix(prefix)}, {words.get(prefix, 'masked')}"
        curves[title] = _values(rows, "removed", name)
    return {name: curve for name, curve in curves.items() if curve}


def _values(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> Curve:
    pairs = [(number(row.get(x)), number(row.get(y))) for row in rows]
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def _trace(name: str, points: Curve, colour: int, dash: int, single: bool) -> Trace:
    style = {
        "color": f"@c{colour % 8}",
        "width": 2.2,
        "dash": "solid" if single else ("solid", "dot", "dash")[dash % 3],
    }
    hover = "%{x:.1f} % removed: %{y:.3f}<extra>%{fullData.name}</extra>"
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": [100 * x for x, _ in points],
        "y": [y for _, y in points], "line": style, "marker": {"size": 6}, "hovertemplate": hover,
    }  # fmt: skip


def _line(place: float, colour: str, word: str, *, left: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A vertical line and its label, to its left or right."""
    x = 100 * place
    shape: dict[str, Any] = {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}
    shape["line"] = {"color": colour, "width": 1.4, "dash": "4px,3px"}
    note: dict[str, Any] = {
        "x": x,
        "y": 1,
        "yref": "paper",
        "text": f"{word} {x:.0f} %",
        "showarrow": False,
    }
    return shape, note | {"font": {"color": colour, "size": 12}, "side": "left" if left else "right"}


def _chosen(run: RunData) -> float | None:
    points = (run.json("cliff.json") or {}).get("points") or []
    return next((number(point.get("ratio")) for point in points if point.get("chosen")), None)


def _knee(run: RunData) -> float | None:
    found = run.json("cliff.json")
    return number((found if isinstance(found, dict) else run.summary).get("knee"))


def _sentence(run: RunData, curves: Mapping[str, Curve], chosen: float | None, knee: float | None, prefix: str) -> str:
    parts = []
    if knee is not None:
        parts.append(f"accuracy falls steeply beyond {say.share(knee, 1)} of the channels")
    if chosen is not None:
        values = [
            f"{name} is {say.score(value)}"
            for name, curve in curves.items()
            if (value := next((y for x, y in curve if abs(x - chosen) < 1e-9), None)) is not None
        ]
        parts.append(f"the plan removes {say.share(chosen, 1)}, where {say.joined(values)}")
    text = say.joined(parts) if parts else f"{say.joined(curves)} against the share of removed channels"
    sentence = f"{prefix}{text}" if prefix else text[:1].upper() + text[1:]
    return f"{sentence}."
