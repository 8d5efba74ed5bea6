"""Costs: what is counted, what one unit saves, and that a cost of the user's own is one function."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from networks import Chain, ConvNorm
from secateur.errors import UserError
from secateur.pruning.allocation import allocate, costs_of
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS, CostKind, cost
from secateur.pruning.graph import Bools, ChannelGraph, Floats, SizeTable, Stored, trace
from secateur.pruning.settings import Guards


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(Chain(lambda x, a, b: b(a(x)), out=8, a=ConvNorm(8, 32, 3), b=ConvNorm(32, 8, 1)))


@pytest.mark.parametrize("name", ["percent", "params", "flops"])
def test_price_and_savings(graph: ChannelGraph, name: str) -> None:
    kind = COSTS[name]
    assert (kind.name, kind.removes, bool(kind.absolute)) == (name, name == "percent", name != "percent")
    counted = kind.of(graph, 96)
    assert (counted.name, counted.unit) == (name, kind.unit)
    dense = counted.price(graph.everything())
    expected = {"percent": graph.units, "params": graph.price().parameters, "flops": graph.price(None, 96).flops}
    assert dense == expected[name]
    savings = counted.savings()
    assert savings.shape == (graph.units,) and (savings > 0).all()
    for unit in (0, 12, graph.units - 1):
        keep = graph.everything()
        keep[unit] = False
        assert dense - counted.price(keep) == pytest.approx(savings[unit]), "no layer reads what it emits here"


def test_what_a_run_began_with(graph: ChannelGraph) -> None:
    budgets = [Budget("flops", 0.5), Budget("percent", 0.3), Budget("flops", 0.2)]
    assert costs_of(graph, budgets, 128) == {"flops": graph.price(None, 128).flops, "percent": graph.units}


def test_bytes_of_files(graph: ChannelGraph) -> None:
    """stem: 3 -> 8 channels of 3 x 3, a: 8 -> 32 of 3 x 3, b: 32 -> 8, each with a norm; last: 8 -> 4 with a bias."""
    with pytest.raises(UserError, match=r"secateur\.file_size"):
        COSTS["size"].of(graph, None).price(graph.everything())
    sized = replace(graph, sizing=SizeTable("x", Stored(1, 17, 4), fixed=1000, layer=100))
    counted = COSTS["size"].of(sized, None)
    total = 1000 + 4 * 100 + (3 * 8 * 9 + 8 * 32 * 9 + 32 * 8) + 17 * (8 + 32 + 8) + 4 * (8 * 4 + 4)
    assert counted.price(graph.everything()) == pytest.approx(total / 1e6, rel=1e-3)
    keep = graph.everything()
    keep[3] = False
    saved = counted.price(graph.everything()) - counted.price(keep)
    assert saved == pytest.approx(counted.savings()[3], rel=1e-2) and saved > 0
    assert counted.inside("layers.a") == pytest.approx((32 * 8 * 9 + 17 * 32 + 100) / 1e6)


def test_tables_are_plain_data() -> None:
    table = SizeTable("onnx-int8", Stored(1, 17, 4), 1000.5, 100)
    assert SizeTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    for data in ({}, table.to_dict() | {"fixed": "x"}, table.to_dict() | {"layer": float("nan")}):
        with pytest.raises(UserError, match="size table"):
            SizeTable.from_dict(data)


@dataclass(frozen=True)
class Milliseconds:
    """A machine on which a channel of one layer takes a hundredth of a millisecond and others nothing."""

    graph: ChannelGraph
    name: str = "milliseconds"
    unit: str = "ms"

    def price(self, keep: Bools) -> float:
        return 0.2 + 0.01 * float(keep[self.graph.emitted["layers.a.conv"]].sum())

    def savings(self) -> Floats:
        return np.bincount(self.graph.emitted["layers.a.conv"], minlength=self.graph.units) * 0.01


@pytest.fixture
def milliseconds() -> Iterator[CostKind]:
    cost("milliseconds", unit="ms", help="Time of one image.", absolute="8 ms")(lambda graph, size: Milliseconds(graph))
    yield COSTS["milliseconds"]
    del COSTS._methods["milliseconds"]


def test_a_cost_of_ones_own(graph: ChannelGraph, milliseconds: CostKind) -> None:
    budget = Budget.parse("milliseconds", "0.4 ms")
    assert (budget, str(budget)) == (Budget("milliseconds", 0.4, share=False), "milliseconds 0.4")
    plan = allocate(graph, np.ones(graph.units), budget, Guards(round_to=1), per_saving=True)
    kept = {layer.name: len(layer.kept) for layer in plan.layers}
    assert kept == {"stem.conv": 8, "layers.a.conv": 20, "layers.b.conv": 8}, "what saves no time stays"
    half = allocate(graph, np.ones(graph.units), Budget("milliseconds", 0.5), Guards(round_to=1), per_saving=True)
    assert {layer.name: len(layer.kept) for layer in half.layers}["layers.a.conv"] == 6
    both = allocate(graph, np.ones(graph.units), [budget, Budget("params", 0.5)], Guards(round_to=1))
    assert both.after.parameters <= 0.5 * both.before.parameters
    assert milliseconds.of(graph, None).price(both.keep(graph)) <= 0.4
