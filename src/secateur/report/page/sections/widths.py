"""The widths of every layer before and after pruning, in the order of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.errors import UserError
from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Chart, ChartView, DataTable, Heading, Section
from secateur.report.page.model import RunData


def widths(runs: Sequence[RunData]) -> Section:
    """One figure per run with a plan."""
    blocks: list[Block] = []
    for run in runs:
        layers = layers_of(run)
        if not layers:
            continue
        blocks += [Heading(run.label)] if len(runs) > 1 else []
        blocks.append(_chart(layers, run))
    if not blocks:
        return Section(
            "widths", "Widths", absent=("No run cut channels by a plan (plan.json), so no widths have changed.")
        )
    lead = (
        "Output channels of every prunable layer in the order of the network: kept channels, and channels of the "
        "dense network."
    )
    return Section("widths", "Widths of the layers", lead, blocks)


Layer = tuple[str, int, int]
"""Name, kept channels, total channels."""


def layers_of(run: RunData) -> list[Layer]:
    """Every prunable layer with its widths, over all cuts of the run."""
    from secateur.pruning.plan import Plan

    whole: Plan | None = None
    for file in run.files("plan.json"):
        data = run.json(str(file.relative_to(run.folder)))
        if not isinstance(data, dict):
            continue
        try:
            plan = Plan.from_dict(data)
            whole = plan if whole is None else whole.then(plan)
        except UserError as error:
            run.unreadable.append(f"{file}: {error}")
    return [(layer.name, len(layer.kept), layer.total) for layer in whole.layers] if whole is not None else []


def _chart(layers: Sequence[Layer], run: RunData) -> Chart:
    names = [name for name, _, _ in layers]
    scores = _scores(run)
    hover = [
        f"{say.markup(name)}<br>{kept} of {total} channels{_score_words(scores.get(name))}"
        for name, kept, total in layers
    ]
    shared: dict[str, Any] = {"type": "bar", "x": names, "customdata": hover}
    shared["hovertemplate"] = "%{customdata}<extra></extra>"
    view = ChartView(
        [
            shared | {"name": "removed", "y": [total for *_, total in layers], "marker": {"color": "@removed"}},
            shared | {"name": "kept", "y": [kept for _, kept, _ in layers], "marker": {"color": "@accent"}},
        ],
        {
            "barmode": "overlay", "bargap": 0.25,
            "xaxis": {"title": "Layer, input to output", "type": "category", "showticklabels": len(names) <= 80,
                      "tickangle": -90, "tickfont": {"size": 9}, "showgrid": False},
            "yaxis": {"title": "Channels"},
        },
    )  # fmt: skip
    table = DataTable(
        "Widths of every layer",
        ["Layer", "Before", "After", "Kept"],
        [[name, str(total), str(kept), say.share(kept / total)] for name, kept, total in layers],
        folded=True,
    )
    return Chart("Channels of every layer before and after", _summary(layers), {"": view}, (), 420, table)


def _summary(layers: Sequence[Layer]) -> str:
    narrower = [entry for entry in layers if entry[1] < entry[2]]
    gone = [entry for entry in layers if not entry[1]]
    if not narrower:
        return f"The widths of all {len(layers)} layers are unchanged."
    kept = sum(kept for _, kept, _ in layers) / max(sum(total for *_, total in layers), 1)
    least = min((entry for entry in narrower if entry[1]), key=lambda entry: entry[1] / entry[2], default=None)
    text = f"{len(narrower)} of {len(layers)} layers are narrower; {say.share(kept)} of all channels are kept."
    if least:
        text += f" The smallest share is kept in {least[0]} ({least[1]} of {least[2]})."
    return text + (f" {say.counted(len(gone), 'layer')} removed completely." if gone else "")


def _scores(run: RunData) -> Mapping[str, Mapping[str, float]]:
    found = run.json("scores.json")
    return (found.get("layers") or {}) if isinstance(found, dict) else {}


def _score_words(scores: Mapping[str, float] | None) -> str:
    if not scores:
        return ""
    words = [f"{key} {scores[key]:.2e}" for key in ("kept", "removed") if scores.get(key) is not None]
    return f"<br>median score: {', '.join(words)}" if words else ""
