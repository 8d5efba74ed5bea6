"""The paired correction on every topology: an uncut network stays as it is, a cut one reads as the whole one does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.layers import hooked
from secateur.pruning.depth import candidates, removal_of, remove
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.repair import Repair, WholeStatistics, correct_, counterparts
from secateur.pruning.settings import RepairSettings
from secateur.pruning.surgery import cut


def offsets(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """For each norm how far the mean of what it reads is from its running mean, [C]."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def note(module: Any, inputs: tuple[Tensor, ...]) -> None:
            maps = inputs[0].double()
            found[name] = maps.mean([0, *range(2, maps.ndim)]) - module.running_mean

        return note

    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in norms.items()]
    with torch.no_grad():
        network.eval()(images)
    for handle in handles:
        handle.remove()
    return found


def test_an_uncut_network_stays_as_it_is(subject: Any) -> None:
    plan = Plan.everything(subject.graph)
    same = cut(subject.detector, subject.graph, plan)
    assert correct_(same, subject.detector, counterparts(subject.detector, plan), [subject.images(3)]) == 3
    before, after = subject.detector.state_dict(), same.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)


def test_a_cut_network_reads_as_far_from_its_means_as_the_whole_one(subject: Any) -> None:
    plan = subject.random_plan(3)
    smaller = cut(subject.detector, subject.graph, plan)
    whole = copy.deepcopy(subject.detector.state_dict())
    images, pairs = subject.images(4), counterparts(subject.detector, plan)
    correct_(smaller, subject.detector, pairs, [images], share=1.0)
    mine, theirs = offsets(smaller, images), offsets(subject.detector, images)
    assert set(mine) == set(pairs)
    for name, pair in pairs.items():
        torch.testing.assert_close(mine[name], theirs[pair.name][pair.channels], rtol=1e-3, atol=1e-3)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in subject.detector.state_dict().items())
    assert not smaller.training


def test_half_way_lies_between(subject: Any) -> None:
    plan = subject.random_plan(3)
    none, half, full = (cut(subject.detector, subject.graph, plan) for _ in range(3))
    pairs = counterparts(subject.detector, plan)
    for network, share in ((half, 0.5), (full, 1.0)):
        correct_(network, subject.detector, pairs, [subject.images()], share=share)
    for a, b, c in zip(none.buffers(), half.buffers(), full.buffers(), strict=True):
        if a.is_floating_point():
            torch.testing.assert_close(b, (a + c) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batches", [1, 3])
def test_images_stream_through(subject: Any, batches: int) -> None:
    """The first norm, behind which nothing is corrected, has the statistics of all images, however they come."""
    plan = subject.random_plan(4)
    smaller = cut(subject.detector, subject.graph, plan)
    pairs = counterparts(subject.detector, plan)
    assert correct_(smaller, subject.detector, pairs, subject.images(6).chunk(batches), share=1.0) == 6
    whole = cut(subject.detector, subject.graph, plan)
    correct_(whole, subject.detector, pairs, [subject.images(6)], share=1.0)
    first = next(iter(pairs))
    for kind in ("running_mean", "running_var"):
        name = f"{first}.{kind}"
        torch.testing.assert_close(smaller.state_dict()[name], whole.state_dict()[name], rtol=1e-5, atol=1e-5)


def test_several_corrections_share_the_statistics_of_the_whole_network(subject: Any) -> None:
    """The whole network reads the images once, and each cut is corrected as if it were alone."""
    batches, reads = subject.images(4).chunk(2), []
    known = WholeStatistics(subject.detector)
    for seed in (3, 4):
        plan = subject.random_plan(seed)
        pairs = counterparts(subject.detector, plan)
        alone, shared = (cut(subject.detector, subject.graph, plan) for _ in range(2))
        correct_(alone, subject.detector, pairs, batches)
        with hooked([subject.detector.register_forward_hook(lambda *_: reads.append(1))]):
            correct_(shared, subject.detector, pairs, batches, statistics=known)
        for mine, theirs in zip(shared.buffers(), alone.buffers(), strict=True):
            assert torch.equal(mine, theirs)
    assert len(reads) == len(batches)


def test_statistics_are_shared_only_if_equal_draws_are_equal_images() -> None:
    """A shuffled loader gives other images for the same draw."""
    any_images, same_images = (
        Repair(nn.Identity(), None, RepairSettings(), same_images=same) for same in (False, True)
    )
    assert any_images.statistics(4, 0) is not any_images.statistics(4, 0)
    assert same_images.statistics(4, 0) is same_images.statistics(4, 0) is not same_images.statistics(4, 1)


def test_removed_blocks_are_made_up_for(subject: Any) -> None:
    free = candidates(subject.detector)
    if not free:
        pytest.skip("this topology has no bottleneck to remove")
    blocks = [free[0].name]
    removal = removal_of(subject.detector, blocks)
    shorter = remove(subject.detector, blocks)
    plan = Plan.of_removal(subject.graph, trace(shorter), removal)
    pairs, images = counterparts(subject.detector, plan), subject.images(4)
    correct_(shorter, subject.detector, pairs, [images], share=1.0)
    mine, theirs = offsets(shorter, images), offsets(subject.detector, images)
    for name, pair in pairs.items():
        torch.testing.assert_close(mine[name], theirs[pair.name][pair.channels], rtol=1e-3, atol=1e-3)
