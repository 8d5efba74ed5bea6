"""Law 4: a cut network can be saved, loaded, trained and cut again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask


def test_saved_and_loaded_cut_gives_the_same_outputs(subject: Any, tmp_path: Path) -> None:
    small = cut(subject.detector, subject.graph, subject.random_plan(3))
    save_checkpoint(Checkpoint.of(small), tmp_path / "small.safetensors")
    loaded = load_checkpoint(tmp_path / "small.safetensors").build()
    assert loaded.names == small.names
    with torch.no_grad():
        outputs = zip(small(subject.images()), loaded(subject.images()), strict=True)
        assert all(torch.equal(a, b) for a, b in outputs)
        decoded = small.predict(subject.images()), loaded.predict(subject.images())
    assert torch.equal(*decoded)


def test_cut_network_learns(subject: Any) -> None:
    small = cut(subject.detector, subject.graph, subject.random_plan(4)).train()
    optimizer = torch.optim.SGD(small.parameters(), lr=1e-3)
    sum(level.square().mean() for level in small(subject.images())).backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    before = small.model[0].state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    optimizer.step()
    assert any(not torch.equal(before[name], tensor) for name, tensor in small.model[0].state_dict().items())


def test_cut_network_is_cut_again(subject: Any, same: Any) -> None:
    small = cut(subject.detector, subject.graph, subject.random_plan(5))
    graph = trace(small)
    keep = torch.rand(graph.units, generator=torch.Generator().manual_seed(0)).numpy() < 0.6
    for space in graph.spaces:
        keep[space.units[0]] = True
    plan = Plan.of(graph, keep, subject.size)
    assert plan.before == subject.graph.price(subject.random_plan(5).keep(subject.graph), subject.size)
    with torch.no_grad():
        same(cut(small, graph, plan)(subject.images()), mask(small, graph, plan)(subject.images()))
