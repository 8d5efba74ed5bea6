"""Plans that follow one another, with and without blocks that go in between, and masks that are cut along."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from chain_subjects import chained
from hostile_yaml import check_sentence
from law_subjects import NARROW, subject_named
from networks import Chain
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.depth import candidates, removal_of, remove
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, cut_masks


def random_plan(graph: ChannelGraph, seed: int, size: int = 128) -> Plan:
    generator = np.random.default_rng(seed)
    keep = generator.random(graph.units) < 0.7
    for space in graph.spaces:
        keep[space.units[0]] = True
    return Plan.of(graph, keep, size)


def tagged(detector: Detector) -> Detector:
    """A copy whose convolutions carry, in the first weight of each filter, the number of the filter."""
    numbered = copy.deepcopy(detector)
    with torch.no_grad():
        for module in numbered.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(torch.arange(len(module.weight)).view(-1, 1, 1, 1).expand_as(module.weight))
    return numbered


@pytest.fixture(scope="module", params=["mixed", "yolov5-ghost"])
def dense(request: pytest.FixtureRequest) -> tuple[Detector, ChannelGraph]:
    detector = chained(request.param)
    return detector, trace(detector)


def test_two_cuts_are_one(dense: tuple[Detector, ChannelGraph]) -> None:
    detector, graph = dense
    first = random_plan(graph, 1)
    small = cut(detector, graph, first)
    again = trace(small)
    second = random_plan(again, 2)
    both = first.then(second)
    assert both.keep(graph).sum() == both.units_kept == second.units_kept
    assert (both.before, both.after) == (first.before, second.after)
    assert graph.price(both.keep(graph), 128) == both.after
    steps, at_once = cut(small, again, second).state_dict(), cut(detector, graph, both).state_dict()
    assert all(torch.equal(steps[name], at_once[name]) for name in at_once)
    with pytest.raises(UserError, match="cannot be combined"):
        first.then(first)


def test_two_cuts_with_a_removal_between() -> None:
    """Rows of one block, indices that move, and blocks removed twice over."""
    detector = tagged(chained("mixed"))
    graph = trace(detector)
    first = random_plan(graph, 3)
    network, total, size = cut(detector, graph, first), first, 128
    current = trace(network)
    for step in range(2):
        names = [c.name for c in candidates(network)][step :: 3 - step]
        assert names
        shorter = remove(network, names)
        smaller = trace(shorter)
        depth = Plan.of_removal(current, smaller, removal_of(network, names), size)
        assert depth.removed_blocks == tuple(names) and depth.after.flops < depth.before.flops
        channels = random_plan(smaller, 5 + step)
        total = total.then(depth).then(channels)
        network = cut(shorter, smaller, channels)
        current = trace(network)
    assert len(total.removed_blocks) > len(names)
    assert total.before == first.before and total.after == channels.after and total.units == graph.units
    present = 0
    for entry in total.layers:
        name = total.removal.renamed(entry.name)
        assert entry.total == len(graph.emitted[entry.name])
        kept = list(entry.kept)
        assert (name is None) == (not kept) == any(entry.name.startswith(f"{b}.") for b in total.removed_blocks)
        if name is not None:
            weight = network.get_parameter(f"{name}.weight")
            assert weight.flatten(1)[:, 0].tolist() == kept
            present += 1
    assert present == len({n for n, units in current.emitted.items() if (units >= 0).any()})
    at_once = remove(detector, total.removed_blocks)
    again = cut(at_once, trace(at_once), total)
    assert again.topology == network.topology
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_a_plan_with_removed_blocks_survives_json_and_refuses_the_whole_network() -> None:
    detector = chained("mixed")
    names = ["model.4.0", "model.4.2", "model.4.3"]
    graph, shorter = trace(detector), trace(remove(detector, names))
    plan = Plan.of_removal(graph, shorter, removal_of(detector, names), 128, criterion="contribution", notes=("few",))
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert "removed blocks: model.4.0, model.4.2, model.4.3" in plan.table() and plan.table().endswith("few")
    assert plan.keep(shorter).all()
    with pytest.raises(UserError, match=r"also removes blocks \(model\.4\.0, .* Remove them before cutting channels"):
        plan.keep(graph)
    with pytest.raises(UserError, match="another network"):
        plan.keep(subject_named("yolov5n").graph)
    data = Plan.everything(graph, 128).to_dict()
    for key in ("removed_blocks", "chain_lengths", "collapsing_chains"):
        del data[key]
    assert Plan.from_dict(data) == Plan.everything(graph, 128), "a file of before blocks could go"
    older = plan.to_dict()
    del older["collapsing_chains"]
    assert Plan.from_dict(older) == plan, "a file of before other architectures had chains"
    with pytest.raises(UserError, match="is not a removable block"):
        Plan.from_dict(plan.to_dict() | {"removed_blocks": ["model.4.9"]})
    with pytest.raises(UserError, match="not a valid pruning plan"):
        Plan.from_dict(plan.to_dict() | {"chain_lengths": {"model.4": "four"}})


def test_what_a_composition_says() -> None:
    graph = subject_named("yolov5n").graph
    budget, keep = Budget("flops", 0.5), np.ones(graph.units, dtype=bool)
    first = Plan.of(graph, keep, 128, budget=budget, criterion="gamma", notes=["a"])
    second = Plan.of(graph, keep, 256, criterion="l1", notes=["b"])
    both = first.then(second)
    assert (both.budget, both.criterion, both.notes) == (budget, "gamma + l1", ("a", "b"))
    assert both.image_size == 256 and both.before == both.after == graph.price(None, 256)
    assert first.then(first).budget is None and first.then(first).criterion == "gamma"


@pytest.mark.parametrize("name", list(NARROW))
def test_masks_lose_what_their_tensors_lose(name: str) -> None:
    """The mask of a weight, cut, is the mask of the cut weight."""
    subject = subject_named(name)
    plan = subject.random_plan(4)
    weights = {k: v for k, v in subject.detector.state_dict().items() if v.ndim > 1}
    small = cut(subject.detector, subject.graph, plan).state_dict()
    masks = cut_masks({k: v > 0 for k, v in weights.items()}, subject.graph, plan)
    assert masks.keys() == weights.keys()
    assert all(torch.equal(masks[k], small[k] > 0) and masks[k].dtype == torch.bool for k in masks)
    shrunk = next(k for k, v in weights.items() if v.shape[0] > small[k].shape[0])
    with pytest.raises(UserError, match=f"The mask of {shrunk} has the shape"):
        cut_masks({shrunk: small[shrunk] > 0}, subject.graph, plan)


def test_masks_follow_removed_blocks() -> None:
    detector = chained("mixed")
    removal = removal_of(detector, ["model.4.0", "model.5.m.1"])
    short = remove(detector, removal.blocks)
    masks = removal.tensors({k: v > 0 for k, v in detector.state_dict().items() if v.ndim == 4})
    assert all(torch.equal(short.state_dict()[name] > 0, mask) for name, mask in masks.items())
    assert "model.4.3.cv1.conv.weight" not in masks and "model.4.2.cv1.conv.weight" in masks


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(Detector(Topology.from_yaml("yolov5n", nc=3)))


@pytest.fixture(scope="module")
def scores(graph: ChannelGraph) -> Floats:
    return np.random.default_rng(0).lognormal(size=graph.units)


def test_plan_survives_json(graph: ChannelGraph, scores: Floats) -> None:
    plan = allocate(graph, scores, Budget("flops", 0.5), criterion="gamma")
    text = json.dumps(plan.to_dict())
    assert Plan.from_dict(json.loads(text)) == plan
    assert Plan.from_dict(Plan.everything(graph).to_dict()) == Plan.everything(graph)
    assert len(text) < 20_000


def test_plan_table(graph: ChannelGraph, scores: Floats) -> None:
    plan = allocate(graph, scores, Budget("flops", 0.5), image_size=640, criterion="gamma")
    lines = plan.table().splitlines()
    assert lines[1].split()[0] == "model.0.conv" and f"/ {plan.layers[0].total}" in lines[1]
    assert any(line.startswith("FLOPs at 640 px") for line in lines)
    short = str(plan).splitlines()
    assert len(short) == 3 + len(plan.notes) and repr(plan) == str(plan)
    assert (
        short[0].startswith(f"{plan.units_kept} of {plan.units} units are kept")
        and "(budget flops 0.5, by gamma)" in short[0]
    )
    assert short[2].startswith("FLOPs at 640 px: ")
    traced = str(Plan.everything(graph)).splitlines()
    assert len(traced) == 3 and traced[2].startswith("FLOPs at 64 px: ") and traced[2].endswith("(100.0%)")


def test_plan_of_a_file_with_two_fields_a_budget(graph: ChannelGraph) -> None:
    data = Plan.everything(graph, 640).to_dict() | {"budget": {"kind": "params", "amount": 2e6}}
    assert Plan.from_dict(data).budget == Budget("params", 2e6, share=False)


@pytest.mark.parametrize("wrong", [{}, {"layers": 3}, {"layers": {"a": {"kept": "x", "total": 1}}}])
def test_broken_plan_file(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="not a valid pruning plan"):
        Plan.from_dict(wrong)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("units", float("inf")),
        ("units_kept", 1e999),
        ("image_size", float("inf")),
        ("image_size", [float("nan"), 1]),
        ("before", {"parameters": float("inf"), "flops": 1}),
        ("after", {"parameters": "x" * 6000, "flops": 1}),
        ("budget", {"kind": "flops", "amount": 10**400}),
        ("layers", {"a": {"kept": "0-99999999999", "total": 99999999999}}),
        ("layers", {"a": {"kept": "0-99999999999", "total": 8}}),
        ("layers", {"a": {"kept": "3,1", "total": 8}}),
        ("layers", {"a": {"kept": "-1", "total": 8}}),
        ("layers", {"a": {"kept": "0", "total": 0}}),
        ("layers", {"a": {"kept": "0", "total": float("inf")}}),
        ("notes", 3),
        ("chain_lengths", {"a": float("inf")}),
    ],
)
def test_numbers_that_no_plan_has_are_refused(graph: ChannelGraph, key: str, value: object) -> None:
    with pytest.raises(UserError, match="not a valid pruning plan") as caught:
        Plan.from_dict(Plan.everything(graph).to_dict() | {key: value})
    check_sentence(caught.value)


def test_plan_of_another_network(graph: ChannelGraph) -> None:
    other = trace(Detector(Topology.from_yaml("yolov5s", nc=3)))
    with pytest.raises(UserError, match="The plan expects"):
        Plan.everything(other).keep(graph)
    with pytest.raises(UserError, match="layer names differ"):
        Plan.everything(other).keep(trace(Chain(lambda x: x)))


def test_plan_that_breaks_a_tie(graph: ChannelGraph) -> None:
    data = Plan.everything(graph).to_dict()
    data["layers"]["model.2.cv1.conv"]["kept"] = "0-7"
    with pytest.raises(UserError, match="tied"):
        Plan.from_dict(data).keep(graph)
