"""The scores of units as a run keeps them: of every unit, with what stays, and medians by layer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards
from secateur.report.unit_scores import kept_units, write_scores


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    return trace(network.eval())


def plan_of(graph: ChannelGraph) -> Plan:
    order = np.arange(float(graph.units))
    return allocate(graph, order, [Budget("percent", 0.25, share=True)], Guards(round_to=1), strict=False)


def test_scores_of_one_look(graph: ChannelGraph, tmp_path: Path) -> None:
    plan, order = plan_of(graph), np.arange(float(graph.units)) + 1
    write_scores(tmp_path, graph, order, plan)
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["scores"] == order.tolist() and sum(found["kept"]) == plan.units_kept < graph.units
    first = found["layers"]["0"]
    removed = order[: graph.units][~kept_units(graph, plan)]
    assert first["removed"] < first["kept"] and removed.max() < graph.units


def test_after_rounds_what_each_unit_lost(graph: ChannelGraph, tmp_path: Path) -> None:
    losses = np.linspace(1, 2, graph.units)
    (tmp_path / "rounds.json").write_text(json.dumps({"losses": losses.tolist()}))
    write_scores(tmp_path, graph, np.arange(float(graph.units)), plan_of(graph))
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == pytest.approx(losses, rel=1e-3)
    (tmp_path / "rounds.json").write_text(json.dumps({"losses": [1.0]}))  # of another network
    write_scores(tmp_path, graph, np.arange(float(graph.units)), plan_of(graph))
    assert json.loads((tmp_path / "scores.json").read_text())["scores"][-1] == graph.units - 1
