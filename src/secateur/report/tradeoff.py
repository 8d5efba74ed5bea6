"""A curve of accuracy against milliseconds as table, CSV, text and plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.evaluation.tradeoff import (
    DENSE,
    CurvePoint,
    Stretch,
    first_to_beat,
    front,
    most_accurate_within,
    stretches,
)
from secateur.report.figures import INK, PALETTE, new_figure, save_figure, short

FIELDS = ("label", "network", "kind", "mAP50", "mAP50_95", "accuracy", "parameters", "gflops", "mb", "ms", "file")
"""Names of the values of a point in pareto.json and pareto.csv."""
_MARKS = {"pruned": ("x", ":"), "healed": ("o", "-"), "finetuned": ("s", "--")}


def curve_csv(points: Sequence[Mapping[str, Any]]) -> str:
    """The points as CSV; values that were not measured are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(points)
    return text.getvalue()


def curve_table(
    points: Sequence[Mapping[str, Any]], figures: Sequence[str], knee: str | None, dominated: Mapping[str, str]
) -> str:
    """The table as text, one line per point, with the knee marked, and dominated points with the point that dominates
    them.

    Args:
        points: points of pareto.json, with the metrics under "figures".
        figures: names of the metrics, the coarse one first.
        knee: label of the knee, or None.
        dominated: label of the dominating point, by label of the dominated one.
    """
    width = max(len("point"), *(len(point["label"]) for point in points))
    columns = {name: max(7, len(name) + 1) for name in figures}
    titles = [f"{'point':<{width}}", f"{'kind':<9}", f"{'ms':>7}", *(f"{name:>{columns[name]}}" for name in figures)]
    lines = [" ".join([*titles, f"{'params (M)':>11}", f"{'GFLOPs':>7}", f"{'MB':>6}"])]
    for point in points:
        values = point["figures"]
        cells = [f"{point['label']:<{width}}", f"{point['kind']:<9}", f"{point['ms']:>7.2f}"]
        cells += [f"{values[name]:>{columns[name]}.3f}" for name in figures]
        cells += [f"{point['parameters'] / 1e6:>11.3f}", f"{point['gflops']:>7.3g}", f"{point['mb']:>6.2f}"]
        better = dominated.get(point["label"])
        cells += ["  <- knee"] if point["label"] == knee else [f"  dominated by {better}"] if better else []
        lines.append(" ".join(cells))
    return "\n".join(lines)


def knee_sentence(points: Sequence[CurvePoint], knee: CurvePoint | None) -> str:
    """A sentence about the knee."""
    best = max(points, key=lambda point: (point.accuracy, -point.ms))
    if knee is None or knee is best:
        return f"No knee: below {best.label} the accuracy falls at least as fast as the time."
    return (
        f"The knee is {knee.label}: {knee.accuracy / best.accuracy:.0%} of the accuracy of {best.label} in "
        f"{knee.ms / best.ms:.0%} of its time."
    )


def winner_sentences(points: Sequence[CurvePoint], figure: str) -> list[str]:
    """Sentences about which of several networks is best at equal milliseconds, and over which range; none for one
    network.
    """
    if len({point.network for point in points}) < 2:
        return []
    found = stretches(points)
    parts = ", ".join(_stretch(one, first=number == 0) for number, one in enumerate(found))
    sentences = [
        f"Best network at equal milliseconds, by the {figure} of its most accurate point that is fast enough: {parts}."
    ]
    dense = sorted((point for point in points if point.kind == DENSE), key=lambda point: point.ms)
    for place, small in enumerate(dense):
        sentences += [_duel(small, large, points, figure) for large in dense[place + 1 :]]
    return sentences


def _stretch(stretch: Stretch, *, first: bool) -> str:
    """A range and its best network: `yolov5n below 8.10 ms (by 0.010 to 0.041)`."""
    start, end = f"{stretch.start:.2f}", "" if stretch.end is None else f"{stretch.end:.2f}"
    if first:
        where = f"below {end} ms" if end else "everywhere"
    else:
        where = f"from {start} to {end} ms" if end else f"from {start} ms on"
    margin = ""
    if stretch.least is not None and stretch.most is not None:
        low, high = f"{stretch.least:.3f}", f"{stretch.most:.3f}"
        margin = f" (by {low})" if low == high else f" (by {low} to {high})"
    return f"{stretch.network} wins {where}{margin}"


def _duel(small: CurvePoint, large: CurvePoint, points: Sequence[CurvePoint], figure: str) -> str:
    """Whether, and from which time on, a cut of a larger network is more accurate than a smaller dense one."""
    cuts = [point for point in points if point.network == large.network and point.kind != DENSE]
    rival = f"the dense {small.label} ({figure} {small.accuracy:.3f} in {small.ms:.2f} ms)"
    better = first_to_beat(small, cuts)
    if better is None:
        return f"No cut {large.network} is more accurate than {rival}."
    reached = f"{better.label} has {better.accuracy:.3f} in {better.ms:.2f} ms"
    if better.ms <= small.ms:
        return f"A cut {large.network} is more accurate than {rival} from {better.ms:.2f} ms on: {reached}."
    within = most_accurate_within(small.ms, cuts)
    there = (
        "no cut of it is as fast"
        if within is None
        else (f"at the same time, {within.label} reaches {within.accuracy:.3f}")
    )
    return f"A cut {large.network} is more accurate than {rival} only from {better.ms:.2f} ms on: {reached}; {there}."


def plot_curve(
    points: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    figures: Sequence[str],
    path: str | Path,
    *,
    knee: str | None = None,
) -> Path:
    """Plots each metric against the milliseconds of all points, one panel per metric.

    Args:
        points: see `curve_table`.
        references: additional points; metrics that they lack are not drawn.
        figures: names of one or two metrics, the coarse one first.
        path: file to write.
        knee: label of the point to mark.
    """
    figure, axes = new_figure(6.2 * len(figures), 5.2, 1, len(figures))
    names = list(dict.fromkeys(point["network"] for point in points))
    for axis, name in zip(axes, figures, strict=True):
        for number, network in enumerate(names):
            own = [point for point in points if point["network"] == network]
            _draw_network(axis, own, name, PALETTE[number % len(PALETTE)])
        _draw_front(axis, points, name)
        for point in references:
            value = point["mAP50"] if name == "mAP50" else point["mAP50_95"]
            if value is not None:
                axis.plot(point["ms"], value, marker="D", color="#8a949e", markersize=6)
                axis.annotate(short(point["label"]), (point["ms"], value), xytext=(5, -10), textcoords="offset points")
        marked = next((point for point in points if point["label"] == knee), None)
        if marked is not None:
            ring = {"marker": "o", "markersize": 15, "markerfacecolor": "none", "markeredgecolor": INK}
            axis.plot(
                marked["ms"], marked["figures"][name], linestyle="none", label=f"knee: {short(knee or '', 30)}", **ring
            )
        axis.set(xlabel="milliseconds per image", ylabel=name, title=name, xlim=(0, None))
        axis.legend(loc="lower right", frameon=False, fontsize=8)
    return save_figure(figure, path)


def _draw_network(axis: Any, points: Sequence[Mapping[str, Any]], name: str, colour: str) -> None:
    """Draws the dense network, and a line from it through the points of each kind."""
    dense = next(point for point in points if point["kind"] == DENSE)
    axis.plot(dense["ms"], dense["figures"][name], marker="*", markersize=14, color=colour, linestyle="none",
              label=f"{short(dense['label'])}, dense")  # fmt: skip
    for kind, (marker, line) in _MARKS.items():
        own = sorted((point for point in points if point["kind"] == kind), key=lambda point: -point["ms"])
        if own:
            axis.plot(
                [point["ms"] for point in (dense, *own)],
                [point["figures"][name] for point in (dense, *own)],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=6,
                markevery=range(1, len(own) + 1),
                label=f"{short(dense['label'])}, {kind}",
            )


def _draw_front(axis: Any, points: Sequence[Mapping[str, Any]], name: str) -> None:
    """Labels the points that are not dominated in this metric."""
    own = [CurvePoint(p["label"], p["network"], p["kind"], p["ms"], p["figures"][name]) for p in points]
    for point in front(own):
        axis.annotate(
            short(point.label, 30), (point.ms, point.accuracy), xytext=(4, 5), textcoords="offset points", fontsize=7
        )
