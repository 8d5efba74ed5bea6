"""Candidates, scores, guards, and what a removal does to names; its laws are in tests/laws/test_removal.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from chain_subjects import chained, silenced
from law_subjects import enliven, subject_named
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import parse_topology
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.depth import ChainBlock, candidates, choose, members, removal_of, remove, select
from secateur.pruning.graph import trace
from secateur.pruning.layer_scores import LAYER_SCORES, layer_scores
from secateur.pruning.plan import Plan
from secateur.pruning.removal import Removal
from secateur.pruning.settings import LayerSettings
from secateur.pruning.surgery import cut


@pytest.fixture
def detector() -> Detector:
    return chained("mixed")


def images(batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(3)).to(dtype)


RESIDUAL = [
    "model.1",
    *(f"model.2.{i}" for i in (1, 2)),
    *(f"model.4.{i}" for i in range(4)),
    *(f"model.5.m.{i}" for i in range(3)),
    *(f"model.7.{i}" for i in range(2)),
    *(f"model.8.m.{i}" for i in range(2)),
]
PLAIN = ["model.12.1", *(f"model.13.m.{i}" for i in range(2))]


def test_candidates_are_residual_blocks(detector: Detector) -> None:
    assert [c.name for c in candidates(detector)] == RESIDUAL
    first = candidates(detector)[0]
    assert (first.chain, first.index, first.length, first.residual) == ("model.1", 0, 1, True)
    free = candidates(detector, any_layer=True)
    assert [c.name for c in free if c.residual] == RESIDUAL
    assert [c.name for c in free if not c.residual] == PLAIN, "model.2.0, 9 and 12.0 change the width"
    assert len(members(detector)) == len(free) + 3


def test_ghosts_are_residual_and_tiny_has_none() -> None:
    assert all(c.residual and ".m." in c.name for c in candidates(chained("yolov5-ghost")))
    assert candidates(chained("yolov5-ghost"))
    tiny = subject_named("yolov3-tiny").detector
    assert candidates(tiny, any_layer=True) == ()
    choice = select(tiny, LayerSettings(layers=2))
    assert choice.blocks == () and choice.notes == ("2 bottlenecks requested, but only 0 can be removed.",)


def test_shortcuts_that_are_listed_go_with_their_blocks() -> None:
    config = {
        "nc": 1,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [
            [-1, 1, "Conv", [8, 3, 2]],
            [-1, 3, "C3", [8, [True, False, True]]],
            [-1, 3, "Bottleneck", [8, [False, True, True]]],
            [-1, 2, "CrossConv", [8, 3, 1, 1, 1.0, [True, False]]],
        ],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
    }
    detector = Detector(parse_topology(config, "listed.yaml"))
    enliven(detector)
    detector.eval()
    residual = ["model.1.m.0", "model.1.m.2", "model.2.1", "model.2.2", "model.3.0"]
    assert [c.name for c in candidates(detector)] == residual
    gone = ["model.1.m.0", "model.2.2", "model.3.0"]
    short = remove(detector, gone)
    assert [block.args[1:] for block in short.topology.blocks[1:4]] == [
        ((False, True),),
        ((False, True),),
        (3, 1, 1, 1.0, (False,)),
    ]
    with torch.no_grad():
        expected = silenced(detector, gone)(images())
        for a, b in zip(expected, short(images()), strict=True):
            torch.testing.assert_close(a, b)
    again = Checkpoint.of(short).build()
    assert torch.equal(again(images())[0], short(images())[0])
    with pytest.raises(UserError, match="2 shortcuts are given for 3 blocks"):
        config["backbone"][1] = [-1, 3, "C3", [8, [True, False]]]
        Detector(parse_topology(config, "listed.yaml"))


def test_candidates_after_a_cut_need_equal_widths(detector: Detector) -> None:
    graph = trace(detector)
    units = graph.emitted["model.13.m.0.cv2.conv"]
    keep = torch.ones(graph.units, dtype=torch.bool).numpy()
    keep[units[0]] = False
    small = cut(detector, graph, Plan.of(graph, keep, 64))
    names = [c.name for c in candidates(small, any_layer=True)]
    assert names == [name for name in [*RESIDUAL, *PLAIN] if name in names]
    assert set(PLAIN) - set(names) == {"model.13.m.0", "model.13.m.1"}
    choice = select(small, LayerSettings(layers=1, layer_score="gamma", any_layer=True))
    assert "model.13.m.0, model.13.m.1" in choice.notes[0]
    with pytest.raises(UserError, match=r"model\.13\.m\.1 reads 7 channels but would get 8"):
        remove(small, ["model.13.m.0"])
    short = remove(small, [*RESIDUAL, PLAIN[0]])
    assert short(images())[0].shape == small(images())[0].shape


def test_gamma_scores_are_means_of_the_last_norm(detector: Detector) -> None:
    block = detector.get_submodule("model.4.2")
    gammas, weights = block.cv2.bn.weight.detach().abs(), block.cv2.conv.weight.detach().abs()
    assert layer_scores(detector, ["model.4.2"], "gamma") == pytest.approx({"model.4.2": gammas.mean().item()})
    expected = (10 * weights.mean((1, 2, 3)) * gammas).mean().item()
    assert layer_scores(detector, ["model.4.2"], "gamma_kernel") == pytest.approx({"model.4.2": expected})
    ghost = chained("yolov5-ghost")
    name = candidates(ghost)[0].name
    last = ghost.get_submodule(name).conv[2]
    both = torch.cat([last.cv1.bn.weight, last.cv2.bn.weight]).abs().mean().item()
    assert layer_scores(ghost, [name], "gamma")[name] == pytest.approx(both)
    with pytest.raises(UserError, match=r"is fused: model\.4\.2 has no batch norms .* or --layer-score contribution"):
        layer_scores(detector.fused(), ["model.4.2"], "gamma")


def test_contribution_is_the_share_of_the_branch(detector: Detector) -> None:
    """Of a single block behind a stem: computed by hand, image by image."""
    with torch.no_grad():
        x = detector.model[0](images(3))
        branch = detector.model[1].cv2(detector.model[1].cv1(x))
    ratios = branch.flatten(1).norm(dim=1) / (x + branch).flatten(1).norm(dim=1)
    scores = layer_scores(detector, ["model.1", "model.8.m.0"], "contribution", [images(3)[:2], images(3)[2:]])
    assert scores["model.1"] == pytest.approx(ratios.mean().item(), rel=1e-5)
    assert 0 < scores["model.8.m.0"] < 5


def loss(network: Detector, batch: Tensor) -> Tensor:
    return sum((level.square().mean((1, 2, 3, 4)).sum() for level in network(batch)), torch.zeros(()))


@pytest.mark.parametrize("name", ["model.4.1", "model.12.1"], ids=["residual", "plain"])
def test_taylor_is_the_derivative_of_the_loss(detector: Detector, name: str) -> None:
    """Moving the output from y a little towards x changes the loss by that much."""
    precise = copy.deepcopy(detector).double().requires_grad_(False)
    batch, step = images(2, torch.double), 1e-5
    scores = layer_scores(precise, [name, "model.1"], "taylor", [batch], loss)

    def moved(image: Tensor, share: float) -> float:
        handle = precise.get_submodule(name).register_forward_hook(lambda m, x, y: y + share * (x[0] - y))
        value = loss(precise, image).item()
        handle.remove()
        return value

    slopes = [(moved(image[None], step) - moved(image[None], -step)) / (2 * step) for image in batch]
    assert scores[name] == pytest.approx(sum(abs(slope) for slope in slopes) / 2, rel=1e-4)
    assert scores[name] > 0


def test_a_scoreless_block_goes_first_and_scoring_changes_nothing(detector: Detector) -> None:
    quiet = copy.deepcopy(detector).train()
    with torch.no_grad():
        for name in ("model.4.1", "model.5.m.2"):
            quiet.get_submodule(name).cv2.bn.weight.zero_()
            quiet.get_submodule(name).cv2.bn.bias.zero_()
    before = copy.deepcopy(quiet.state_dict())
    for method in LAYER_SCORES:
        settings = LayerSettings(layers=2, layer_score=method)
        evidence = {"weights": (), "images": ([images()],), "labels": ([images()], loss)}[LAYER_SCORES[method].reads]
        assert select(quiet, settings, *evidence).blocks == ("model.4.1", "model.5.m.2"), method
    assert quiet.training and all(torch.equal(before[k], v) for k, v in quiet.state_dict().items())
    assert not any(module._forward_hooks for module in quiet.modules())


@pytest.mark.parametrize(
    ("method", "evidence", "words"),
    [
        ("magic", (), "Unknown layer score 'magic'; choose one of contribution, gamma"),
        ("contribution", (), "needs images"),
        ("contribution", ([],), "no image"),
        ("taylor", ([images()],), "labelled images"),
        ("taylor", ([], loss), "no image"),
        ("contribution", ([images() * float("nan")],), "model.1 is not finite"),
    ],
)
def test_bad_evidence(detector: Detector, method: str, evidence: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        layer_scores(detector, ["model.1"], method, *evidence)


def chain(name: str, length: int, **changes: Any) -> list[ChainBlock]:
    shape = (8, 4, 4)
    return [ChainBlock(f"{name}.{i}", name, i, length, True, shape, shape, **changes) for i in range(length)]


def test_the_lowest_go_within_the_guards() -> None:
    free = [*chain("model.1.m", 3), *chain("model.2", 2)]
    scores = {c.name: score for c, score in zip(free, [0.1, 0.2, 0.3, 0.15, 0.5], strict=True)}
    assert choose(free, scores, 2).blocks == ("model.1.m.0", "model.2.0")
    assert choose(free, scores, 0).blocks == ()
    kept_one = choose(free, scores, 9, min_bottlenecks=1)
    assert kept_one.blocks == ("model.1.m.0", "model.1.m.1", "model.2.0")
    assert kept_one.notes == ("9 bottlenecks requested, but only 3 can be removed.",)
    assert choose(free, scores, 3, min_bottlenecks=2).blocks == ("model.1.m.0",)
    same = dict.fromkeys(scores, 1.0)
    assert choose(free, same, 2).blocks == ("model.1.m.0", "model.1.m.1"), "equal scores: the later ones stay"


def test_chains_go_together_by_their_sum() -> None:
    free = [*chain("model.1.m", 3), *chain("model.2", 2), *chain("model.3", 3)[1:]]
    scores = dict.fromkeys((c.name for c in free), 0.2) | {"model.2.1": 0.35}
    choice = choose(free, scores, 1, whole_chains=True)
    assert choice.blocks == ("model.2.0", "model.2.1") and not choice.notes
    choice = choose(free, scores, 3, whole_chains=True)
    assert len(choice.blocks) == 5 and "3 chains of bottlenecks requested, but only 2 can" in choice.notes[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": -1}, "--layers"),
        ({"min_bottlenecks": -1}, "--min-bottlenecks"),
        ({"chains": True, "min_bottlenecks": 1}, "whole chains"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        LayerSettings(**options)


@pytest.mark.parametrize("name", ["model.4.4", "model.0", "model.5.m", "", "model.1.0"])
def test_what_is_no_block_cannot_be_removed(detector: Detector, name: str) -> None:
    with pytest.raises(UserError, match="is not a removable block"):
        remove(detector, [name])


def test_blocks_that_change_the_width_cannot_be_removed(detector: Detector) -> None:
    for blocks in (["model.9"], ["model.12.0"], ["model.2.0", "model.2.1", "model.2.2"]):
        with pytest.raises(UserError, match=r"input and output widths differ|would get"):
            remove(detector, blocks)


@pytest.mark.parametrize("name", ["mixed", "yolov5"])
def test_a_removed_block_without_a_sum_passes_its_input_on(name: str) -> None:
    whole = chained(name)
    blocks = [c.name for c in candidates(whole, any_layer=True) if not c.residual]
    short = remove(whole, blocks).to(torch.bfloat16)
    assert remove(short, []).model[0].conv.weight.dtype == torch.bfloat16
    short = remove(whole, blocks)
    handles = [whole.get_submodule(b).register_forward_hook(lambda module, x, y: x[0]) for b in blocks]
    with torch.no_grad():
        outputs, expected = short(images()), whole(images())
    for handle in handles:
        handle.remove()
    assert blocks and all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    assert all(c.residual for c in candidates(short, any_layer=True))


def test_names_and_topology_after_a_removal(detector: Detector) -> None:
    removal = removal_of(detector, ["model.5.m.1", "model.4.0", "model.4.1", "model.4.3", "model.1"])
    assert removal.blocks == ("model.1", "model.4.0", "model.4.1", "model.4.3", "model.5.m.1")
    pairs = {
        "model.4.2.cv1.conv.weight": "model.4.cv1.conv.weight",
        "model.4.1.cv1.conv": None,
        "model.4": "model.4",
        "model.5.m.2": "model.5.m.1",
        "model.5.m.1.cv1": None,
        "model.1.cv1.bn.bias": None,
        "model.12.0.cv1.conv": "model.12.0.cv1.conv",
    }
    for old, new in pairs.items():
        assert removal.renamed(old) == new
        if new is not None and old != new:
            assert removal.original(new) == old
    rows = remove(detector, removal.blocks).topology.blocks
    assert (rows[1].kind, rows[4].repeats, rows[5].repeats) == ("nn.Identity", 1, 2)
    assert [row.sources for row in rows] == [row.sources for row in detector.topology.blocks]
    assert Removal.from_dict(removal.to_dict()) == removal
    second = removal_of(remove(detector, removal.blocks), ["model.4", "model.5.m.1"])
    both = removal.then(second)
    at_once = removal_of(detector, [*removal.blocks, "model.4.2", "model.5.m.2"])
    assert set(both.blocks) == set(at_once.blocks) and both.lengths == at_once.lengths
    with pytest.raises(UserError, match="is not a removable block"):
        Removal(("model.4.7",), (("model.4", 4),))


def test_a_network_without_chains_says_so() -> None:
    with pytest.raises(UserError, match=r"Sequential has no chain_blocks\(\)"):
        remove(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)), ["0"])


def test_only_chains_that_collapse_change_the_name_of_what_is_left() -> None:
    lengths = (("stem.layers", 2), ("model.4", 2))
    removal = Removal(("stem.layers.0", "model.4.0"), lengths, collapsing=("model.4",))
    assert removal.renamed("stem.layers.1.conv") == "stem.layers.0.conv"
    assert removal.renamed("model.4.1.conv") == "model.4.conv" and removal.original("model.4.conv") == "model.4.1.conv"
    assert Removal.from_dict(removal.to_dict()) == removal
