"""The laws on every network of the package: a cut is its mask, its price is exact, its file gives the same outputs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import DETECTORS, OTHERS, SIZE, Subject, checkpoint_named, fresh, subject_named

from secateur.evaluation.cost import count
from secateur.families.loading import load_checkpoint
from secateur.families.outputs import tensors_of
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.graph import remaining, trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask


@pytest.fixture(params=[*DETECTORS, *OTHERS])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each network in turn."""
    return subject_named(request.param)


def differences(first: Any, second: Any) -> list[float]:
    """Largest difference of each pair of outputs, as a share of the largest value."""
    pairs = list(zip(tensors_of(first), tensors_of(second), strict=True))
    assert pairs
    assert all(b.std() > 1e-3 for _, b in pairs), "the network is not lively"
    return [float((a - b).abs().max() / max(1.0, float(b.abs().max()))) for a, b in pairs]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_cut_equals_mask(subject: Subject, training: bool) -> None:
    plan = subject.plan()
    dense, small = subject.network, cut(subject.network, subject.graph, plan).double().train(training)
    assert 0.4 < count(small, SIZE).flops / count(dense, SIZE).flops < 0.75
    silent = mask(dense, subject.graph, plan).double().train(training)
    images = subject.images(4).double()
    with torch.no_grad():
        assert max(differences(small(images), silent(images))) < 1e-9
        single = cut(dense, subject.graph, plan)(images.float()[:1])
        if not training:
            assert max(differences(single, mask(dense, subject.graph, plan)(images.float()[:1]))) < 1e-5


def test_the_price_is_exact_at_every_size(subject: Subject) -> None:
    plan = subject.plan(1)
    small = cut(subject.network, subject.graph, plan)
    for size in (SIZE, 640, (96, 160)):
        price, counted = subject.graph.price(plan.keep(subject.graph), size), count(small, size)
        assert (price.parameters, price.flops) == (counted.parameters, counted.flops), size


def test_rounds_cut_again_by_the_graph_of_the_first_trace(subject: Subject) -> None:
    """A trace of the cut network may find fewer or other units; a cut by `remaining` is exact all the same."""
    first = subject.plan(1)
    small = cut(subject.network, subject.graph, first)
    graph = remaining(subject.graph, first.keep(subject.graph))
    keep = graph.everything()
    for space in graph.spaces:
        keep[space.units[1::3]] = False
    second = Plan.of(graph, keep)
    smaller, silent = cut(small, graph, second), mask(small, graph, second)
    with torch.no_grad():
        assert max(differences(smaller(subject.images()), silent(subject.images()))) < 1e-5
    priced, counted = graph.price(keep, 96), count(smaller, 96)
    assert (priced.parameters, priced.flops) == (counted.parameters, counted.flops)


def test_a_file_gives_the_outputs_of_what_was_cut(subject: Subject, tmp_path: Path) -> None:
    small = cut(subject.network, subject.graph, subject.plan(2))
    save_checkpoint(Checkpoint.of(small), tmp_path / "small.safetensors")
    back = load_checkpoint(tmp_path / "small.safetensors").build()
    with torch.no_grad():
        mine, theirs = tensors_of(small(subject.images())), tensors_of(back(subject.images()))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert back.architecture == small.architecture and type(back) is type(small)


def test_only_the_last_layers_are_frozen(subject: Subject) -> None:
    head = f"model.model.{len(subject.network.model.model) - 1}."
    causes = {entry.layer: entry.by for entry in subject.graph.frozen}
    assert causes and all(layer.startswith(head) for layer in causes), causes


@pytest.mark.parametrize("name", ["yolov10n", "yolo11n", "yolo26n"])
def test_attention_loses_an_equal_part_of_every_head(name: str) -> None:
    subject = subject_named(name)
    dense = {number: module for number, module in subject.network.named_modules() if hasattr(module, "key_dim")}
    small = cut(subject.network, subject.graph, subject.plan(4))
    assert dense
    for place, module in dense.items():
        now = small.get_submodule(place)
        assert now.num_heads == module.num_heads == 2 and now.scale == module.scale
        assert now.head_dim < module.head_dim or now.key_dim < module.key_dim
        assert now.qkv.conv.out_channels == now.num_heads * (2 * now.key_dim + now.head_dim)
        assert now.pe.conv.groups == now.num_heads * now.head_dim == now.qkv.conv.in_channels


def test_attention_of_yolo12_loses_whole_heads() -> None:
    subject = subject_named("yolo12n")
    attention = [name for name, module in subject.network.named_modules() if hasattr(module, "all_head_dim")]
    spaces = [space for space in subject.graph.spaces if space.layers[0] in {f"{name}.qkv.conv" for name in attention}]
    assert len(spaces) == len(attention) == 8
    small = cut(subject.network, subject.graph, subject.plan(4))
    for name in attention:
        now = small.get_submodule(name)
        assert now.head_dim == 32 and now.all_head_dim == 32 * now.num_heads == now.pe.conv.groups
    assert sum(small.get_submodule(name).num_heads for name in attention) < sum(len(space.units) for space in spaces)


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_tracing_leaves_the_network_as_it_was(name: str) -> None:
    network = checkpoint_named(name).build()
    untouched = copy.deepcopy(network)
    images = torch.rand(1, 3, SIZE, SIZE)
    before = {module: dict(vars(part)) for module, part in network.named_modules()}
    trace(network, images)
    for module, part in network.named_modules():
        now = vars(part)
        assert now.keys() == before[module].keys()
        assert all(now[key] is value for key, value in before[module].items())
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), untouched.parameters(), strict=True))
    with torch.no_grad():
        theirs, mine = untouched.model(images), network.model(images)
    assert torch.equal(theirs[0], mine[0])


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n", "yolov8n-seg", "yolov8n-cls"])
def test_the_outputs_are_those_of_the_package(name: str) -> None:
    theirs, ours = fresh(name).half().float().eval(), subject_named(name).network
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected, found = theirs(images)[1], ours(images)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(expected, found)
        return
    branches = [(expected, found)] if "boxes" in expected else [(expected[key], found[key]) for key in expected]
    for branch, own in branches:
        assert set(own) == {*branch, "sizes"} - {"feats"}
        for key in set(own) - {"sizes"}:
            turned = branch[key].transpose(1, 2) if branch[key].ndim == 3 else branch[key]
            assert torch.equal(turned, own[key]), key
        assert own["sizes"] == tuple(tuple(level.shape[2:]) for level in branch["feats"])
