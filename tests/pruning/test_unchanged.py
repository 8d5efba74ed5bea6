"""A trace leaves the network exactly as it was: attributes, containers, buffers, modes, hooks."""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from law_subjects import NARROW, detector_named
from secateur.errors import UserError
from secateur.pruning.graph import trace, tracing


class Cache:
    """A plain object that a forward writes to."""

    def __init__(self) -> None:
        self.maps: list[Any] = []


class Forgetful(nn.Module):
    """Writes into everything that a forward can write into."""

    def __init__(self, *, fails: bool = False, real: bool = False) -> None:
        super().__init__()
        self.fails, self.real = fails, real
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, 4, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.shape: tuple[int, ...] = ()
        self.anchors = torch.empty(0)
        self.offsets = torch.zeros(2)
        self.grid = np.zeros(3)
        self.sizes: list[Any] = [1, [2]]
        self.table: dict[str, Any] = {"kept": 0}
        self.ordered: OrderedDict[str, Any] = OrderedDict(a=1, b=2)
        self.seen: set[int] = {5}
        self.last_few: deque[Any] = deque([0], maxlen=2)
        self.state = SimpleNamespace(step=0)
        self.cache = Cache()

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        if self.real:  # a plain tensor stays on the CPU, so meta tensors do not get through
            x = x + torch.ones(()).reshape(1, 1, 1, 1) * self.offsets.sum()
            with torch.no_grad():
                self.offsets += 1
                self.calls += 1
                self.last.weight.mul_(2)
        self.anchors = x
        self.shape = tuple(images.shape)
        self.added_by_forward = x
        self.grid += 1
        self.sizes[1].append(x)
        self.sizes.append(len(self.sizes))
        self.table["kept"] = x
        self.table["new"] = 1
        self.ordered.move_to_end("a")
        self.seen.add(7)
        self.last_few.append(x)
        self.state.step += 1
        self.cache.maps.append(x)
        self.first[0].seen = x
        self.first.train()
        self.last.requires_grad_(False)
        if self.fails:
            raise RuntimeError("no further")
        return self.last(x)


def described(value: Any, seen: set[int] | None = None) -> Any:
    """All that a network is made of, as data that can be compared: identities, values and order."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        kind = type(value).__name__
        return id(value), kind, value.dtype, value.requires_grad, value.is_meta, value.detach().cpu().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, dict):
        return type(value), id(value), [(key, described(part, seen)) for key, part in value.items()]
    if isinstance(value, list | tuple | deque):
        return type(value), [described(part, seen) for part in value]
    if isinstance(value, nn.Module | SimpleNamespace | Cache):
        if id(value) in seen:
            return id(value)
        seen.add(id(value))
        return id(value), described(vars(value), seen)
    return value


def hooked(network: nn.Module) -> nn.Module:
    """The network in a mixture of modes, with a hook and a frozen parameter."""
    network.train()
    children = list(network.children())
    children[0].eval()
    children[0].register_forward_hook(lambda module, inputs, output: None)
    next(network.parameters()).requires_grad_(False)
    return network


@pytest.mark.parametrize("real", [False, True], ids=["by meta tensors", "by a call"])
def test_what_a_forward_writes_is_undone(real: bool) -> None:
    network = hooked(Forgetful(real=real))
    before = described(network)
    assert trace(network).units == (0 if real else 8)
    assert described(network) == before
    copy.deepcopy(network)(torch.rand(1, 3, 32, 32))  # nothing in it is of the trace's kind


@pytest.mark.parametrize("real", [False, True])
def test_a_forward_that_raises_changes_nothing_either(real: bool) -> None:
    network = hooked(Forgetful(fails=True, real=real))
    before = described(network)
    with pytest.raises(UserError, match=r"cannot be traced \(no further"):
        trace(network)
    assert described(network) == before


@pytest.mark.parametrize("name", NARROW)
def test_a_detector_is_as_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_KNOWN", OrderedDict())
    network = hooked(copy.deepcopy(detector_named(name)))
    before = described(network)
    trace(network)
    assert described(network) == before


class Keeping(nn.Module):
    """Keeps a map as long as images have the same shape, and adds a plain tensor that stays on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)
        self.offset = torch.ones(8, 1, 1)
        self.shape: tuple[int, ...] = ()
        self.map = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        if self.shape != tuple(images.shape):
            self.shape, self.map = tuple(images.shape), torch.ones_like(images[:, :1])
        return self.last(self.first(images + self.map) + self.offset)


def test_a_map_that_a_failed_attempt_kept_is_not_read_by_the_next() -> None:
    graph = trace(Keeping())
    for side in (64, 96, 160):
        assert graph.price(image_size=side).flops == 2 * (8 * 27 + 4 * 8) * side**2
