"""Laws of depth: taking out a residual block is silencing it, and what is left is a detector like any other."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from chain_subjects import CHAINED, chained, silenced
from export_formats import answered, expected_of
from secateur.deploy.exporters import export
from secateur.deploy.runtimes import open_predictor
from secateur.evaluation.cost import count
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.depth import candidates, removal_of, remove
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask


@pytest.fixture(params=CHAINED)
def detector(request: pytest.FixtureRequest) -> Detector:
    return chained(request.param)


def some(detector: Detector, how: str) -> list[str]:
    """All residual blocks, every second one, or all but the last of each chain."""
    free = candidates(detector)
    return [c.name for c in free if how == "all" or (c.index % 2 if how == "second" else c.index < c.length - 1)]


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 128, 128, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("how", ["all", "second", "but one"])
def test_removing_a_residual_block_is_silencing_it(detector: Detector, how: str) -> None:
    blocks = some(detector, how)
    assert blocks
    short, silent = remove(detector, blocks), silenced(detector, blocks)
    with torch.no_grad():
        outputs, expected, dense = short(images()), silent(images()), detector(images())
        assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
        assert any((a - b).abs().max() > 1e-4 for a, b in zip(outputs, dense, strict=True))
        for a, b in zip(short.train()(images(4)), silent.train()(images(4)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * max(1.0, b.abs().max().item()))


def test_removing_nothing_changes_nothing(detector: Detector) -> None:
    detector = copy.deepcopy(detector).train()
    detector.model[0].requires_grad_(False)
    before = copy.deepcopy(detector.state_dict())
    same = remove(detector, [])
    assert same.topology == detector.topology and same.training
    assert list(before) == list(same.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in same.state_dict().items())
    assert [p.requires_grad for p in same.parameters()] == [p.requires_grad for p in detector.parameters()]
    remove(detector, some(detector, "all"), images())
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.state_dict().items())
    assert detector.training


def test_what_is_left_is_priced_saved_loaded_cut_trained_and_shortened_again(
    detector: Detector, tmp_path: Path
) -> None:
    blocks = some(detector, "but one")
    short = remove(detector, blocks)
    save_checkpoint(Checkpoint.of(short), tmp_path / "short.safetensors")
    loaded = load_checkpoint(tmp_path / "short.safetensors").build()
    graph = trace(loaded)
    removal = Plan.of_removal(trace(detector), graph, removal_of(detector, blocks), 256)
    for price, network in ((removal.before, detector), (removal.after, short)):
        counted = count(network, 256)
        assert (price.parameters, price.flops) == (counted.parameters, counted.flops)
    keep = torch.rand(graph.units, generator=torch.Generator().manual_seed(0)).numpy() < 0.6
    for space in graph.spaces:
        keep[space.units[0]] = True
    plan = Plan.of(graph, keep, 128)
    small = cut(loaded, graph, plan)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(short(images()), loaded(images()), strict=True))
        for a, b in zip(small(images()), mask(loaded, graph, plan)(images()), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(1.0, b.abs().max().item()))
    last = [c.name for c in candidates(small)]
    bare = remove(small, last)
    with torch.no_grad():
        expected = silenced(small, last)(images())
        assert all(torch.equal(a, b) for a, b in zip(bare(images()), expected, strict=True))
    assert not candidates(bare)
    save_checkpoint(Checkpoint.of(bare), tmp_path / "bare.safetensors")
    bare = load_checkpoint(tmp_path / "bare.safetensors").build().train()
    sum(level.square().mean() for level in bare(images())).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in bare.parameters())


@pytest.mark.parametrize("name", ["yolov3", "yolov5-ghost", "mixed"])
def test_onnx_file_gives_the_outputs(name: str, tmp_path: Path) -> None:
    bare = remove(chained(name), some(chained(name), "all"))
    export(bare, tmp_path / "bare.onnx", 128)
    expected = expected_of(bare, images(1))
    found = answered(open_predictor(tmp_path / "bare.onnx"), images(1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_images_make_up_for_the_mean_of_what_goes(detector: Detector) -> None:
    blocks = some(detector, "all")
    bare, repaired = remove(detector, blocks), remove(detector, blocks, images(4))

    def error(network: Detector) -> float:
        with torch.no_grad():
            levels = zip(network(images(4)), detector(images(4)), strict=True)
            return sum(float((a - b).mean((0, 2, 3)).abs().sum()) for a, b in levels)

    assert error(repaired) < 0.02 * error(bare)
    weights = dict(bare.named_parameters())
    for name, parameter in repaired.named_parameters():
        assert torch.equal(parameter, weights[name]) or name.startswith(f"model.{len(bare.model) - 1}.m.")
