"""Layers that run in training alone are cut with what they read; their own channels stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.pruning.graph import trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask


class WithAuxiliary(nn.Module):
    """A head that helps a training and is left out afterwards."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 1)
        self.auxiliary = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Dropout(0.0), nn.Conv2d(6, 2, 1))
        self.broken = broken

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.stem(x)).relu()
        if not self.training:
            return self.last(x)
        if self.broken and float(x.detach().sum()) > 1e9:
            raise ValueError
        return self.last(x), self.auxiliary(x)


def without_three(network: nn.Module) -> tuple[Any, Plan]:
    graph = trace(network, torch.rand(1, 3, 16, 16))
    keep = np.ones(graph.units, dtype=bool)
    keep[:3] = False
    return graph, Plan.of(graph, keep, 16)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_they_follow_a_cut(training: bool) -> None:
    network = lively(WithAuxiliary())
    graph, plan = without_three(network)
    small = cut(network, graph, plan).train(training)
    auxiliary: Any = small.get_submodule("auxiliary.0")
    assert auxiliary.in_channels == 5 and auxiliary.out_channels == 6
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        mine, theirs = small(images), mask(network, graph, plan).train(training)(images)
    for a, b in zip(mine if training else [mine], theirs if training else [theirs], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_their_own_channels_stay_and_cost_no_operations() -> None:
    network = WithAuxiliary()
    graph, plan = without_three(network)
    assert graph.units == 8
    assert {entry.layer: entry.by for entry in graph.frozen}["auxiliary.0"] == "a layer that runs only in training"
    price = graph.price(plan.keep(graph), 16)
    assert price.flops == 2 * 14 * 14 * (5 * 27 + 5 * 4)
    assert price.parameters == sum(p.numel() for p in cut(network, graph, plan).parameters())


def test_modes_are_as_before() -> None:
    network = WithAuxiliary().train()
    network.norm.eval()
    trace(network, torch.rand(1, 3, 16, 16))
    assert network.training and network.auxiliary.training and not network.norm.training


def test_a_network_that_cannot_be_followed_in_training_is_known_by_its_evaluation() -> None:
    graph, _ = without_three(WithAuxiliary(broken=True))
    assert graph.units == 8
