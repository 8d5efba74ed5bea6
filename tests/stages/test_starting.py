from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.errors import UserError
from secateur.pruning.budget import allocate
from secateur.pruning.graph import trace
from secateur.pruning.importance import score
from secateur.pruning.plan import Budget
from secateur.pruning.settings import PruneSettings
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut
from secateur.sparsity.one_shot import zero_weights
from secateur.stages.starting import same_classes, starting_point

NAMES = {0: "disc", 1: "square", 2: "triangle"}


def test_weights_alone_keep_everything(tiny_weights: Path) -> None:
    before, start = load_checkpoint(tiny_weights), starting_point(str(tiny_weights), "", NAMES)
    assert all(torch.equal(start.tensors[name], tensor) for name, tensor in before.tensors.items())


def test_a_pruned_network_stays_pruned_with_other_classes(tiny_weights: Path, tmp_path: Path) -> None:
    detector = load_checkpoint(tiny_weights).detector()
    graph = trace(detector)
    plan = allocate(graph, score("l2", graph, collect(detector, graph)), Budget("percent", 0.4), image_size=64)
    file = tmp_path / "cut.safetensors"
    save_checkpoint(Checkpoint.of(cut(detector, graph, plan)), file)
    start = starting_point(str(file), "", {0: "a", 1: "b"})
    trunk = {name: t for name, t in load_checkpoint(file).tensors.items() if not name.startswith("model.11.m")}
    assert all(torch.equal(start.tensors[name], tensor) for name, tensor in trunk.items())
    assert start.detector().nc == 2
    assert start.names == {0: "a", 1: "b"}


def test_zeros_are_held_with_other_classes_but_for_the_new_head(tiny_weights: Path, tmp_path: Path) -> None:
    sparse, _ = zero_weights(load_checkpoint(tiny_weights), PruneSettings(unstructured=0.5))
    file = tmp_path / "sparse.safetensors"
    save_checkpoint(sparse, file)
    start = starting_point(str(file), "", {0: "a", 1: "b"})
    assert set(sparse.masks) - set(start.masks) == {"model.11.m.0.weight", "model.11.m.1.weight"}
    assert all(torch.equal(start.masks[name], sparse.masks[name]) for name in start.masks)


def test_cfg_must_be_the_network_of_the_weights(tiny_weights: Path, tiny_cfg: Path) -> None:
    assert starting_point(str(tiny_weights), str(tiny_cfg), NAMES).topology.nc == 3
    with pytest.raises(UserError, match="leave --cfg out"):
        starting_point(str(tiny_weights), "yolov5s", NAMES)


def test_the_same_seed_gives_the_same_fresh_network(tiny_cfg: Path) -> None:
    first, again, other = (starting_point("", str(tiny_cfg), NAMES, seed).tensors for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.0.conv.weight"], other["model.0.conv.weight"])


def test_nothing_to_start_from() -> None:
    with pytest.raises(UserError, match="Nothing to start from"):
        starting_point("", "", NAMES)


def test_classes_are_compared_by_number_and_names(tiny_weights: Path) -> None:
    checkpoint = load_checkpoint(tiny_weights)
    assert same_classes(checkpoint, NAMES)
    assert not same_classes(checkpoint, {0: "a", 1: "b", 2: "c"})
    assert not same_classes(checkpoint, {0: "disc"})


def test_a_fresh_network_takes_the_number_of_anchors(tiny_cfg: Path) -> None:
    assert starting_point("", str(tiny_cfg), NAMES, anchors=4).detector().na == 4
