"""The scores of the units of a pruned network, in a file from which the page of the run draws their distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from secateur.errors import UserError
from secateur.files import read_json, write_json
from secateur.pruning.graph import Bools, ChannelGraph, Floats
from secateur.pruning.plan import Plan
from secateur.pruning.rounds import STATE

FILE = "scores.json"


def write_scores(folder: Path, graph: ChannelGraph, order: Floats, plan: Plan) -> None:
    """Writes scores.json: the score of every unit, whether it stays, and medians by layer.

    Args:
        folder: where it goes; the state of rounds there, if any, has what each unit lost when it was scored last,
            which says more than the order in which units go.
        graph: of the whole network.
        order: [units], first lowest; after one look at the network these are the scores.
        plan: what stays.
    """
    scores = _losses(folder, graph)
    scores = order if scores is None else scores
    kept = kept_units(graph, plan)
    write_json(
        folder / FILE,
        {
            "criterion": plan.criterion,
            "layers": _medians(graph, scores, kept),
            "scores": [_short(score) for score in scores.tolist()],
            "kept": [int(stays) for stays in kept.tolist()],
        },
    )


def kept_units(graph: ChannelGraph, plan: Plan) -> Bools:
    """Which units of the whole network stay, [units], also where the plan removes whole blocks."""
    kept = np.zeros(graph.units + 1, dtype=bool)
    for layer in plan.layers:
        if layer.name in graph.emitted:
            kept[graph.emitted[layer.name][list(layer.kept)]] = True
    return kept[:-1]  # the last place is that of channels that belong to no unit


def _losses(folder: Path, graph: ChannelGraph) -> Floats | None:
    """What each unit lost by the state of rounds in a folder; None without one of this network."""
    if not (folder / STATE).is_file():
        return None
    try:
        losses = np.asarray(read_json(folder / STATE)["losses"], dtype=np.float64)
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return losses if losses.shape == (graph.units,) else None


def _medians(graph: ChannelGraph, scores: Floats, kept: Bools) -> dict[str, dict[str, Any]]:
    """The median score of the kept and of the removed units of each layer; a key is missing where there are none."""
    found = {}
    for name, units in graph.emitted.items():
        own = units[units >= 0]
        halves = {"kept": scores[own[kept[own]]], "removed": scores[own[~kept[own]]]}
        medians = {key: _short(float(np.median(values))) for key, values in halves.items() if len(values)}
        if medians:
            found[name] = medians
    return found


def _short(value: float) -> float:
    """Four digits: a histogram shows no more."""
    return float(f"{value:.4g}")
