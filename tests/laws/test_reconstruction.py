"""Reconstruction on every topology: an uncut network stays as it is, a layer that lost inputs answers more truly."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.repair import Moments, moments_of_inputs, reconstruct_, reconstruction
from secateur.pruning.surgery import cut


def energy(network: nn.Module, images: Tensor) -> Tensor:
    """A loss whose gradient differs from place to place."""
    return sum((level.float().square().sum() for level in network(images)), torch.zeros(()))


def error(weight: Tensor, kept: list[int], old: Tensor, moments: Moments) -> float:
    """Mean squared difference of what a layer gives with `weight` for its kept inputs, and with `old` for all."""
    padded = torch.zeros_like(old, dtype=torch.float64)
    padded[:, kept] = weight.double()
    off = padded - old.double()
    rows = off.flatten(1) if moments.by_tap else off.movedim(1, -1).flatten(0, -2)
    return float((rows @ moments.matrix() * rows).sum())


@pytest.mark.parametrize("widest", [reconstruction.WIDEST, 0])
def test_layers_that_lost_inputs_answer_more_truly(subject: Any, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "WIDEST", widest)
    monkeypatch.setattr(reconstruction, "RIDGE", 1e-6)
    whole = subject.detector
    before = copy.deepcopy(whole.state_dict())
    moments = moments_of_inputs(whole, [subject.images(4)], energy)
    plan = subject.random_plan(3)
    smaller = cut(whole, subject.graph, plan)
    untouched = copy.deepcopy(smaller.state_dict())
    changed = reconstruct_(smaller, whole, plan, moments, share=1.0)
    assert changed
    stays = np.append(plan.keep(subject.graph), True)
    axes = {(axis.tensor, axis.dim): np.flatnonzero(stays[axis.units]).tolist() for axis in subject.graph.axes}
    for name in changed:
        old = before[f"{name}.weight"]
        given = axes.get((f"{name}.weight", 0), list(range(len(old))))
        read = axes[f"{name}.weight", 1]
        after = error(smaller.state_dict()[f"{name}.weight"], read, old[given], moments[name])
        assert after <= error(old[given][:, read], read, old[given], moments[name]) * (1 + 1e-4) + 1e-9
    moved = {f"{name}.weight" for name in changed} | {f"{name}.bias" for name in changed if moments[name].moves_bias}
    for name, tensor in smaller.state_dict().items():
        assert name in moved or torch.equal(tensor, untouched[name])
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    assert all(parameter.requires_grad for parameter in whole.parameters())


def test_an_uncut_network_stays_as_it_is(subject: Any) -> None:
    plan = Plan.everything(subject.graph)
    same = cut(subject.detector, subject.graph, plan)
    moments = moments_of_inputs(subject.detector, [subject.images(2)], energy)
    assert reconstruct_(same, subject.detector, plan, moments) == []
    assert all(torch.equal(tensor, subject.detector.state_dict()[name]) for name, tensor in same.state_dict().items())


def test_moments_are_those_of_what_a_convolution_reads() -> None:
    """About the mean only where something takes care of means: here the bias, for no norm follows."""
    images = torch.rand(5, 3, 9, 12)
    patches = functional.unfold(images, 3, padding=1, stride=2).transpose(0, 1).flatten(1).double()
    for bias, expected in ((False, patches @ patches.T / patches.shape[1]), (True, patches.cov(correction=0))):
        convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=1, bias=bias)
        batches = [images[:2], images[2:]]
        found = moments_of_inputs(convolution, batches, lambda network, batch: network(batch).sum())[""]
        torch.testing.assert_close(found.matrix(), expected, rtol=1e-4, atol=1e-6)


def test_nothing_of_a_batch_is_kept() -> None:
    """A hook that names the tensor that carries it makes a circle that is never freed: gigabytes in a minute."""
    outputs: list[Any] = []

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        output = network(batch)
        outputs.append(weakref.ref(output))
        return output.square().sum()

    moments_of_inputs(nn.Conv2d(3, 4, 3), [torch.rand(2, 3, 8, 8)], loss)
    assert outputs[0]() is None


def test_layers_that_no_one_asks_for_are_not_read() -> None:
    """As with masks on every layer: then there is nothing to differentiate either."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    read = moments_of_inputs(network, [torch.rand(2, 3, 8, 8)], lambda net, batch: net(batch).sum(), without=["1"])
    assert list(read) == ["0"]
    assert moments_of_inputs(network, [torch.rand(2, 3, 8, 8)], lambda net, batch: net(batch).sum(), ["0", "1"]) == {}


class Twins(nn.Module):
    """The first layer gives every channel twice; the second reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 3, padding=1)
        with torch.no_grad():
            self.first.weight[4:], self.first.bias[4:] = self.first.weight[:4], self.first.bias[:4]  # type: ignore[index]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 5, H, W]."""
        return self.second(self.first(images).relu())


def test_a_twin_takes_the_place_of_one_that_goes() -> None:
    torch.manual_seed(0)
    network, images = Twins().eval(), torch.rand(8, 3, 16, 16)
    graph = trace(network, images[:1])
    keep = torch.ones(graph.units, dtype=torch.bool).numpy()
    keep[graph.emitted["first"][4:]] = False
    plan = Plan.of(graph, keep)
    moments = moments_of_inputs(network, [images], lambda net, batch: net(batch).square().sum())
    expected = network(images)
    errors = []
    for share in (0.0, 0.5, 1.0):
        smaller = cut(network, graph, plan)
        assert reconstruct_(smaller, network, plan, moments, share=share) == ["second"]
        errors.append((smaller(images) - expected).square().mean().item())
    assert errors[2] < 0.05 * errors[0] and errors[2] < errors[1] < errors[0]
