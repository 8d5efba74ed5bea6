"""Laws 1 to 3: a cut changes nothing that a mask does not, an empty plan changes nothing, the price is exact."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from secateur.evaluation.cost import count
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("seed", [0, 1])
def test_cut_equals_mask(subject: Any, same: Any, seed: int, training: bool) -> None:
    plan = subject.random_plan(seed)
    assert 0.2 < plan.removed_share < 0.8
    small = cut(subject.detector, subject.graph, plan).train(training)
    silent = mask(subject.detector, subject.graph, plan).train(training)
    # Batch statistics of few values amplify rounding, on every processor otherwise: training mode gets more images and
    # room for it; the law is tested in double precision below.
    images = subject.images(8 if training else 2)
    with torch.no_grad():
        same(small(images), silent(images), slack=4.0 if training else 1.0)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_cut_equals_mask_in_double_precision(subject: Any, training: bool) -> None:
    plan = subject.random_plan(2)
    small = cut(subject.detector, subject.graph, plan).double().train(training)
    silent = mask(subject.detector, subject.graph, plan).double().train(training)
    with torch.no_grad():
        for a, b in zip(small(subject.images().double()), silent(subject.images().double()), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * max(1.0, b.abs().max().item()))


def test_mask_is_not_the_dense_network(subject: Any) -> None:
    silent = mask(subject.detector, subject.graph, subject.random_plan(0))
    with torch.no_grad():
        dense, masked = subject.detector(subject.images()), silent(subject.images())
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(dense, masked, strict=True))


def test_cutting_leaves_the_old_network_alone(subject: Any) -> None:
    before = copy.deepcopy(subject.detector.state_dict())
    cut(subject.detector, subject.graph, subject.random_plan(0))
    after = subject.detector.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_empty_plan_gives_the_same_tensors(subject: Any) -> None:
    same_network = cut(subject.detector, subject.graph, Plan.everything(subject.graph))
    before, after = subject.detector.state_dict(), same_network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before[next(iter(before))].data_ptr() != after[next(iter(after))].data_ptr()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_price_is_what_is_counted_on_the_cut_network(subject: Any, seed: int) -> None:
    plan = subject.random_plan(seed)
    keep = plan.keep(subject.graph)
    small = cut(subject.detector, subject.graph, plan)
    stride = int(max(subject.detector.strides))
    for size in (2 * stride, 640, (3 * stride, 7 * stride)):
        priced, counted = subject.graph.price(keep, size), count(small, size)
        assert (priced.parameters, priced.flops) == (counted.parameters, counted.flops)
    priced, counted = subject.graph.price(None, 640), count(subject.detector, 640)
    assert (priced.parameters, priced.flops) == (counted.parameters, counted.flops)
