"""Latency tables: what they hold, what they refuse, and the price of a choice of channels by them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latency_subjects import BLOCK, OFFSET, SLOPE, law, table_of
from networks import Chain, ConvNorm
from secateur.errors import UserError
from secateur.pruning.allocation import allocate, costs_of
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.latency import LatencyTable, Signature, TimedSignature
from secateur.pruning.settings import Guards
from secateur.pruning.surgery import cut
from secateur.sizes import ImageSize


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = {"a": ConvNorm(8, 64, 3), "b": ConvNorm(64, 32, 3, 2), "c": ConvNorm(32, 32, 3, groups=32)}
    return Chain(lambda x, a, b, c: torch.cat([y := b(a(x)), c(y)], 1), out=64, **layers)


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    graph = trace(network())
    return dataclasses.replace(graph, timing=table_of(graph))


def test_stages_of_a_network(graph: ChannelGraph) -> None:
    kinds = {operation.weight or operation.signature.kind: operation for operation in graph.operations}
    a, b, c = (kinds[f"layers.{name}.conv.weight"] for name in "abc")
    assert a.signature == Signature("conv", (64, 64), (3, 3), padding=(1, 1), activation="silu")
    assert (b.signature.stride, b.signature.scaled((64, 64), (320, 320)).map) == ((2, 2), (320, 320))
    assert (c.signature.per_group, c.signature.map, c.signature.reads_matter) == ((1, 1), (32, 32), False)
    assert len(kinds["concat"].emits) == 64 and not len(kinds["concat"].reads)
    assert [len(operation.reads) for operation in (a, b, c)] == [8, 64, 32]


def test_the_price_is_that_of_the_cut_network(graph: ChannelGraph) -> None:
    cost = COSTS["ms"].of(graph, 64)
    plan = allocate(graph, np.random.default_rng(0).random(graph.units), Budget("flops", 0.4), Guards(round_to=1))
    smaller = trace(cut(network(), graph, plan))
    for keep, traced in ((graph.everything(), graph), (plan.keep(graph), smaller)):
        expected = sum(
            law(operation.signature, len(operation.reads), len(operation.emits)) for operation in traced.operations
        )
        assert cost.price(keep) == pytest.approx(SLOPE * expected + OFFSET)
    again = dataclasses.replace(smaller, timing=graph.timing)
    assert COSTS["ms"].of(again, 64).price(again.everything()) == pytest.approx(cost.price(plan.keep(graph)))


def test_the_price_never_rises_when_a_unit_goes(graph: ChannelGraph) -> None:
    random = np.random.default_rng(1)
    ragged = tuple(
        dataclasses.replace(e, ms=tuple(tuple(t * random.uniform(0.5, 2) for t in row) for row in e.ms))
        for e in table_of(graph).entries
    )
    noisy = dataclasses.replace(graph, timing=dataclasses.replace(table_of(graph), entries=ragged))
    cost, keep = COSTS["ms"].of(noisy, 64), noisy.everything()
    prices = [cost.price(keep)]
    for unit in random.permutation(noisy.units)[:-1]:
        keep[unit] = False
        prices.append(cost.price(keep))
    assert (np.diff(prices) <= 1e-12).all() and len(set(prices)) < len(prices) / 2, "a staircase"


def test_savings_are_slopes_though_the_price_is_a_staircase(graph: ChannelGraph) -> None:
    cost = COSTS["ms"].of(graph, 64)
    savings = cost.savings()
    assert savings.shape == (graph.units,) and (savings >= 0).all()
    assert not savings[graph.emitted["stem.conv"]].any(), "it is one block wide"
    unit = graph.emitted["layers.a.conv"]
    keep = graph.everything()
    keep[unit[:32]] = False
    assert cost.price(graph.everything()) - cost.price(keep) == pytest.approx(savings[unit[:32]].sum())
    keep = graph.everything()
    keep[unit[: BLOCK - 1]] = False
    assert cost.price(keep) == cost.price(graph.everything())


def test_what_a_module_costs(graph: ChannelGraph) -> None:
    cost = COSTS["ms"].of(graph, 64)
    inside = sum(cost.inside(name) for name in ("stem", "layers", "last"))
    concat = next(operation for operation in graph.operations if operation.signature.kind == "concat")
    everything = cost.price(graph.everything()) - OFFSET - SLOPE * law(concat.signature, 0, 64)
    assert inside == pytest.approx(everything)
    assert cost.inside("layers.a") == cost.inside("layers.a.conv") > 0 == cost.inside("layers.ab")
    flops, params = COSTS["flops"].of(graph, 64), COSTS["params"].of(graph, 64)
    assert flops.inside("layers.a") == 2 * 64 * 64 * 9 * 8 * 64
    assert params.inside("layers.a") == 9 * 8 * 64 + 2 * 64
    assert COSTS["percent"].of(graph, 64).inside("layers.a") == 0


@pytest.mark.parametrize("text", ["0.6", "60%", "100 ms"])
def test_a_budget_in_milliseconds(graph: ChannelGraph, text: str) -> None:
    budget = Budget.parse("ms", text)
    scores = np.random.default_rng(0).random(graph.units)
    plan = allocate(graph, scores, budget, Guards(min_share=0), per_saving=True, image_size=64)
    dense = costs_of(graph, [budget], 64)["ms"]
    target = budget.amount * dense if budget.share else budget.amount
    reached = COSTS["ms"].of(graph, 64).price(plan.keep(graph))
    assert 0.8 * target < reached <= target
    assert all(len(layer.kept) % BLOCK == 0 for layer in plan.layers), "widths follow the table's block"


def test_an_impossible_budget_is_answered_in_milliseconds(graph: ChannelGraph) -> None:
    with pytest.raises(UserError, match=r"The budget ms 0\.1 cannot be reached: .* ms \(.* of the dense model\)"):
        allocate(graph, np.ones(graph.units), Budget.parse("ms", "0.1 ms"))


def test_rounding_follows_the_table_only_where_nothing_else_is_said(graph: ChannelGraph) -> None:
    coarse = dataclasses.replace(graph, timing=table_of(graph, block=16))
    for guards, multiple in ((Guards(), 16), (Guards(round_to=4), 4)):
        plan = allocate(coarse, np.random.default_rng(0).random(graph.units), Budget("flops", 0.5), guards)
        kept = {len(layer.kept) for layer in plan.layers if len(layer.kept) < layer.total}
        assert all(count % multiple == 0 for count in kept)
        assert multiple == 16 or any(count % 16 for count in kept)


def test_a_graph_without_a_table_says_how_to_get_one(graph: ChannelGraph) -> None:
    with pytest.raises(UserError, match=r"latency table.*secateur\.latency"):
        allocate(dataclasses.replace(graph, timing=None), np.ones(graph.units), Budget("ms", 0.5))


def test_a_table_for_something_else_is_refused(graph: ChannelGraph) -> None:
    with pytest.raises(UserError, match="measured at 64 px, not at 96 x 96 px"):
        COSTS["ms"].of(graph, 96)
    wider = trace(Chain(lambda x, a: a(x), out=128, a=ConvNorm(8, 128, 3)))
    with pytest.raises(UserError, match="for another network or image size"):
        COSTS["ms"].of(dataclasses.replace(wider, timing=graph.timing), 64).price(wider.everything())


@pytest.mark.parametrize("size", [64, (64, 96)])
def test_tables_are_plain_data(graph: ChannelGraph, tmp_path: Path, size: ImageSize) -> None:
    table = table_of(graph, size)
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_a_table_for_height_and_width(graph: ChannelGraph, size: tuple[int, int]) -> None:
    timed = dataclasses.replace(graph, timing=table_of(graph, size))
    expected = sum(
        law(operation.signature.scaled((64, 64), size), len(operation.reads), len(operation.emits))
        for operation in graph.operations
    )
    # Scores come from squares of the longer side.
    for asked in (size, 96, None):
        assert COSTS["ms"].of(timed, asked).price(graph.everything()) == pytest.approx(SLOPE * expected + OFFSET)
    with pytest.raises(UserError, match=f"measured at {size[0]} x {size[1]} px, not at 64 x 64 px"):
        COSTS["ms"].of(timed, 64)
    with pytest.raises(UserError, match=f"measured at {size[0]} x {size[1]} px, not at {size[1]} x {size[0]} px"):
        COSTS["ms"].of(timed, size[::-1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 9}, "has format 9"),
        ({"block": 0}, "block is 0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": [64, -1]}, "image_size is -1"),
        ({"image_size": [64, 64, 64]}, r"image_size is \[64, 64, 64\]"),
        ({"image_size": "64"}, "image_size is 64"),
        ({"slope": float("nan")}, "not finite"),
        ({"entries": [{"signature": {"kind": "conv"}}]}, "is not a valid latency table"),
        ({"r2": 0.9}, "explains only 90% of the variance"),
        ({"slope": -1.0}, "explains only"),
    ],
)
def test_a_broken_table_is_one_sentence(
    graph: ChannelGraph, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    assert graph.timing is not None
    file = tmp_path / "table.json"
    file.write_text(json.dumps(graph.timing.to_dict() | change))
    with pytest.raises(UserError, match=sentence):
        LatencyTable.load(file)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"emits": (16, 8)}, "do not ascend"),
        ({"ms": ((1.0,),)}, "do not match its widths"),
        ({"ms": ((1.0, -2.0),)}, "is not a valid number of milliseconds"),
    ],
)
def test_broken_times_are_one_sentence(graph: ChannelGraph, entry: dict[str, object], sentence: str) -> None:
    good = TimedSignature(Signature("add", (8, 8)), (0,), (8, 16), ((1.0, 2.0),))
    assert graph.timing is not None
    broken = dataclasses.replace(graph.timing, entries=(dataclasses.replace(good, **entry),))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=sentence):
        LatencyTable.from_dict(json.loads(json.dumps(broken.to_dict())))
    assert LatencyTable.from_dict(dataclasses.replace(graph.timing, entries=(good,)).to_dict()).entries == (good,)


def test_disturbed_times_are_made_monotone() -> None:
    entry = TimedSignature(Signature("conv", (8, 8)), (8, 16), (8, 16, 24), ((1.0, 5.0, 3.0), (2.0, 2.5, 4.0)))
    assert entry.monotone.tolist() == [[1.0, 2.5, 3.0], [2.0, 2.5, 4.0]]
    assert entry.at(np.array([8, 12, 99]), np.array([8, 20])).tolist() == [[1, 2.75], [1.5, 3], [2, 3.25]]
