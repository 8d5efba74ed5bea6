"""Accuracy against milliseconds, FLOPs, parameters and megabytes: stages, candidates, controls and references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from secateur.report.page import wording as say
from secateur.report.page.blocks import Chart, ChartView, Choice, DataTable, Section, Trace
from secateur.report.page.model import PARETO, RunData, Stage, number
from secateur.report.page.reference import ReferencePoint, published
from secateur.report.page.sections.candidates import search_charts

_X = (("ms", "ms"), ("gflops", "GFLOPs"), ("parameters", "Parameters"), ("mb", "MB"))
_TITLES = {"ms": "Milliseconds per image", "gflops": "GFLOPs", "parameters": "Parameters", "mb": "Megabytes (fp16)"}
_Y = (("mAP50_95", "mAP50-95"), ("mAP50", "mAP50"))
# Kinds in the order of the legend: label, colour, marker, size.
_LOOKS = {
    "reference": ("reference networks", "@faint", "x", 8),
    "candidate": ("candidates", "@faint", "circle-open", 7),
    "dense": ("dense", "@ink", "square", 11),
    "pruned": ("pruned", "@amber", "triangle-up", 11),
    "healed": ("healed", "@green", "diamond", 11),
    "finetuned": ("fine-tuned", "@accent", "circle", 11),
    "control": ("narrow dense (control)", "@violet", "cross", 11),
}
_KINDS = {"dense": "dense", "healed": "healed", "finetuned": "finetuned", "control": "control", "trained": "finetuned"}


@dataclass(frozen=True)
class ParetoPoint:
    """One network in the plot: its run, its kind (see `_LOOKS`), and its values by the names of pareto.json."""

    label: str
    kind: str
    run: str
    figures: Mapping[str, float]
    line: str = ""


def pareto(runs: Sequence[RunData], references: Sequence[ReferencePoint] = ()) -> Section:
    """One figure over all runs with a choice of its axes."""
    points = [point for run in runs for point in _points_of(run)]
    if not points:
        return Section("pareto", "Accuracy against cost", absent="No run evaluated a network. Give --data.")
    lines = list(references) or (published() if _on_coco(runs) else [])
    points += [ParetoPoint(point.label, "reference", "", point.figures, point.line) for point in lines]
    views = {}
    for y, _ in _Y:
        for x, _ in _X:
            shown = [point for point in points if x in point.figures and y in point.figures]
            if any(point.kind != "reference" for point in shown):
                words = _summary(points, x, y)
                views[f"{x}|{y}"] = replace(_view(shown, x, y, len(runs) > 1), words=words)
    if not views:
        return Section("pareto", "Accuracy against cost", absent="No network of the runs has both an mAP and a cost.")
    own_x = [option for option in _X if any(key.startswith(f"{option[0]}|") for key in views)]
    own_y = [option for option in _Y if any(key.endswith(f"|{option[0]}") for key in views)]
    choices = [Choice("Cost", own_x), Choice("Accuracy", own_y)]
    first = views.get(f"{own_x[0][0]}|{own_y[0][0]}") or next(iter(views.values()))
    chart = Chart("Networks by cost and accuracy", first.words, views, choices, 460, _listed(points))
    lead = "Up and to the left is better. "
    lead += "Candidates were measured during a sweep or the cliff curve. " if any(
        point.kind == "candidate" for point in points
    ) else ""  # fmt: skip
    if lines and not references:
        lead += "Grey lines are published figures for COCO val2017 at 640 px."
    return Section("pareto", "Accuracy against cost", lead, [chart, *search_charts(runs)])


def kind_of(stage: Stage, run: RunData) -> str:
    """The kind of a stage, from its file name."""
    if stage is run.dense:
        return "dense"
    if stage.compared:
        return "control"
    stem = stage.name.split("-")[0]
    return _KINDS.get(stem, "pruned")


def _points_of(run: RunData) -> list[ParetoPoint]:
    found = [
        ParetoPoint(stage.title, kind_of(stage, run), run.label, _figures_of(stage))
        for stage in run.stages
        if stage.metrics and run.command != "sweep"
    ]
    found += _candidates(run)
    saved = run.json(PARETO)
    for point in (saved or {}).get("points") or [] if isinstance(saved, dict) else []:
        figures = {name: value for name in _TITLES | dict(_Y) if (value := number(point.get(name))) is not None}
        kind = point.get("kind") if point.get("kind") in _LOOKS else "candidate"
        network = f"{point['network']}: " if point.get("network") else ""
        found.append(ParetoPoint(f"{network}{point.get('label')}", str(kind), run.label, figures))
    return found


def _figures_of(stage: Stage) -> dict[str, float]:
    values = {
        "mAP50": stage.score("mAP50"), "mAP50_95": stage.score("mAP50-95"), "ms": stage.milliseconds,
        "gflops": stage.cost("gflops"), "parameters": stage.cost("parameters"), "mb": stage.cost("file_mb"),
    }  # fmt: skip
    return {name: value for name, value in values.items() if value is not None}


def _candidates(run: RunData) -> list[ParetoPoint]:
    """Networks measured in between: points of the cliff curve, and rows of a sweep."""
    found: list[ParetoPoint] = []
    for point in (run.json("cliff.json") or {}).get("points") or []:
        share, corrected = number(point.get("ratio")), number(point.get("corrected"))
        if share and corrected is not None:
            cost = {"gflops": number(point.get("flops")), "parameters": number(point.get("parameters"))}
            cost["gflops"] = cost["gflops"] / 1e9 if cost["gflops"] is not None else None
            known = {name: value for name, value in cost.items() if value is not None}
            found.append(ParetoPoint(f"{share:.0%} of channels removed, corrected", "candidate", run.label,
                                     {"mAP50": corrected, **known}))  # fmt: skip
    for row in run.summary.get("table") or [] if run.command == "sweep" else []:
        found += _sweep_points(run, row)
    return found


def _sweep_points(run: RunData, row: Mapping[str, Any]) -> list[ParetoPoint]:
    cost = {name: value for name in ("gflops", "parameters") if (value := number(row.get(name))) is not None}
    names = {"": "masked", "cut_": "cut", "tuned_": "fine-tuned"}
    found = []
    for prefix, words in names.items():
        scores = {"mAP50": number(row.get(f"{prefix}mAP50")), "mAP50_95": number(row.get(f"{prefix}mAP50-95"))}
        known = {name: value for name, value in scores.items() if value is not None}
        if not known:
            continue
        kind = "dense" if not row.get("percent") else "finetuned" if prefix == "tuned_" else "candidate"
        label = "dense" if kind == "dense" else f"{row['percent']:.0%} removed, {words}"
        found.append(ParetoPoint(label, kind, run.label, {**known, **cost}))
    return found


def _view(points: Sequence[ParetoPoint], x: str, y: str, several: bool) -> ChartView:
    traces: list[Trace] = []
    names, named = list(dict.fromkeys(point.run for point in points if point.run)), _labelled(points, x, y)
    for line in dict.fromkeys(point.line for point in points if point.kind == "reference"):
        own = [point for point in points if point.line == line and point.kind == "reference"]
        traces.append(_trace(line, own, (x, y), "reference", named))
    for kind in [kind for kind in _LOOKS if kind != "reference"]:
        mine = [point for point in points if point.kind == kind]
        if not mine:
            continue
        traces.append(_trace(_LOOKS[kind][0], mine, (x, y), kind, named, several))
    if several:
        traces += [
            {"type": "scatter", "mode": "lines", "name": name, "x": [p.figures[x] for p in own], "showlegend": True,
             "y": [p.figures[y] for p in own], "line": {"color": f"@c{place % 8}", "width": 1.2, "dash": "dot"},
             "hoverinfo": "skip"}
            for place, name in enumerate(names)
            if (own := [p for p in points if p.run == name and p.kind not in {"candidate", "control"}])
        ]  # fmt: skip
    layout = {
        "xaxis": {"title": _TITLES[x], "rangemode": "tozero"},
        "yaxis": {"title": dict(_Y)[y]},
    }
    return ChartView(traces, layout)


_LABELLED = ("dense", "finetuned", "healed", "control", "pruned", "reference")


def _labelled(points: Sequence[ParetoPoint], x: str, y: str) -> list[ParetoPoint]:
    """The points whose labels fit without overlapping the label of a more important point."""
    xs, ys = [p.figures[x] for p in points], [p.figures[y] for p in points]
    width, height = max(xs) or 1.0, (max(ys) - min(ys)) or 1.0
    kept: list[ParetoPoint] = []
    ranked = [point for kind in _LABELLED for point in reversed(points) if point.kind == kind]
    for point in ranked:
        near = (
            abs(point.figures[x] - other.figures[x]) < 0.16 * width
            and abs(point.figures[y] - other.figures[y]) < 0.06 * height
            for other in kept
        )
        if not any(near):
            kept.append(point)
    return kept


def _trace(
    name: str,
    points: Sequence[ParetoPoint],
    axes: tuple[str, str],
    kind: str,
    named: Sequence[ParetoPoint],
    several: bool = False,
) -> Trace:
    (x, y), (_, colour, symbol, size) = axes, _LOOKS[kind]
    ordered = sorted(points, key=lambda point: point.figures[x]) if kind == "reference" else list(points)
    labels = [f"{point.run}: {point.label}" if several and point.run else point.label for point in ordered]
    hover = f"%{{customdata}}<br>{_TITLES[x]} %{{x:.4g}}<br>{dict(_Y)[y]} %{{y:.3f}}<extra></extra>"
    names = [say.markup(label) for label in labels]
    shown = [label if point in named else "" for point, label in zip(ordered, labels, strict=True)]
    return {
        "type": "scatter", "name": name, "x": [p.figures[x] for p in ordered], "y": [p.figures[y] for p in ordered],
        "mode": f"{'lines+' if kind == 'reference' else ''}markers+text", "text": shown,
        "customdata": names,
        "hovertemplate": hover, "cliponaxis": False, "textfont": {"size": 11},
        "textposition": "top center" if kind != "reference" else "bottom right",
        "line": {"color": colour, "width": 1.2, "dash": "dash"},
        "marker": {"color": colour, "symbol": symbol, "size": size},
    }  # fmt: skip


def _summary(points: Sequence[ParetoPoint], x: str, y: str) -> str:
    own = [p for p in points if p.kind not in {"reference", "candidate"} and x in p.figures and y in p.figures]
    several = len({point.run for point in own}) > 1
    names = [f"{p.run}: {p.label}" if several else p.label for p in own]
    listed = [
        f"{name} {say.score(p.figures[y])} at {_cost_words(p, x)}" for name, p in zip(names[:8], own, strict=False)
    ]
    others = sum(p.kind == "candidate" and x in p.figures and y in p.figures for p in points)
    more = f" {say.counted(others, 'candidate')} {'is' if others == 1 else 'are'} also shown." if others else ""
    if not listed:
        return f"{dict(_Y)[y]} of {len(points)} networks against their cost.{more}"
    return f"{dict(_Y)[y]}: {'; '.join(listed)}.{more}"


def _cost_words(point: ParetoPoint, x: str) -> str:
    write: Callable[[float | None], str] = say.count if x == "parameters" else say.plain
    unit = {"ms": " ms", "gflops": " GFLOPs", "parameters": " parameters", "mb": " MB"}[x]
    return f"{write(point.figures[x])}{unit}"


def _listed(points: Sequence[ParetoPoint]) -> DataTable:
    rows = []
    for point in points:
        get = point.figures.get
        name = f"{point.run}: {point.label}" if point.run else point.label
        kind = _LOOKS[point.kind][0]
        rows.append([name, kind, say.score(get("mAP50")), say.score(get("mAP50_95")), say.plain(get("ms")),
                     say.plain(get("gflops")), say.count(get("parameters")), say.plain(get("mb"))])  # fmt: skip
    titles = ["Network", "Kind", "mAP50", "mAP50-95", "ms", "GFLOPs", "Parameters", "MB"]
    return DataTable("All points of the plot", titles, rows, frozenset({0, 1}), folded=True)


def _on_coco(runs: Sequence[RunData]) -> bool:
    """Whether every run was evaluated on COCO val2017, so that published figures are comparable."""
    return bool(runs) and all(
        "coco" in str(run.data.get("file", "")).lower() and (run.data.get("splits") or {}).get("val") == 5000
        for run in runs
    )
