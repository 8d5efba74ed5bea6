"""Scores of the units of a pruned network, in a file from which the report page plots their distribution."""

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
    """Writes scores.json: the score of every unit, whether it is kept, and medians by layer.

    Args:
        folder: output folder. If it contains the state of rounds, the loss of each unit when it was last scored is
            used, which is more informative than the order of removal.
        graph: graph of the dense network.
        order: float64 [units], lowest removed first; without rounds, these are the scores.
        plan: which units are kept.
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
    """Which units of the dense network are kept: bool [units], also if the plan removes complete blocks."""
    kept = np.zeros(graph.units + 1, dtype=bool)
    for layer in plan.layers:
        if layer.name in graph.emitted:
            kept[graph.emitted[layer.name][list(layer.kept)]] = True
    return kept[:-1]  # the last entry represents channels that belong to no unit


def _losses(folder: Path, graph: ChannelGraph) -> Floats | None:
    """The loss of each unit from the state of rounds in a folder, float64 [units]; None without a state of this
    network.
    """
    if not (folder / STATE).is_file():
        return None
    try:
        losses = np.asarray(read_json(folder / STATE)["losses"], dtype=np.float64)
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return losses if losses.shape == (graph.units,) else None


def _medians(graph: ChannelGraph, scores: Floats, kept: Bools) -> dict[str, dict[str, Any]]:
    """The median score of the kept and of the removed units of each layer; a key is missing if there are no such
    units.
    """
    found = {}
    for name, units in graph.emitted.items():
        own = units[units >= 0]
        halves = {"kept": scores[own[kept[own]]], "removed": scores[own[~kept[own]]]}
        medians = {key: _short(float(np.median(values))) for key, values in halves.items() if len(values)}
        if medians:
            found[name] = medians
    return found


def _short(value: float) -> float:
    """Rounded to four digits, sufficient for a histogram."""
    return float(f"{value:.4g}")
