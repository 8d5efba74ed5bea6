"""Model files: what is read, what is refused and in which words."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hostile_yaml import HOSTILE, check_sentence
from secateur.errors import UserError
from secateur.families.yolov5.activations import canonical_activation
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Block, Topology, parse_topology


def config(**changes: Any) -> dict[str, Any]:
    """A small model file's content."""
    base: dict[str, Any] = {
        "nc": 2,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 3, "C3", [32]]],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
    }
    return {**base, **changes}


def test_multiples_scale_depth_and_width() -> None:
    topology = parse_topology(config(depth_multiple=0.33, width_multiple=0.3), "m.yaml")
    assert topology.blocks[:2] == (Block((-1,), 1, "Conv", (8, 3, 2)), Block((-1,), 1, "C3", (16,)))
    topology = parse_topology(config(depth_multiple=1.4, width_multiple=0.3, channel_multiple=4), "m.yaml")
    assert topology.blocks[1] == Block((-1,), 4, "C3", (12,))


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n.yaml", Path("yolov5n.yaml")])
def test_names_resolve(name: str | Path) -> None:
    topology = Topology.from_yaml(name, nc=7)
    assert (topology.nc, len(topology.blocks), topology.activation) == (7, 25, "SiLU")
    assert topology.anchors[0] == (10, 13, 16, 30, 33, 23)


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yolov5n.yaml").write_text(yaml.safe_dump(config()))
    monkeypatch.chdir(tmp_path)
    assert Topology.from_yaml("yolov5n.yaml").nc == 2


def test_odd_file_builds_and_survives_json(odd_yaml: Path) -> None:
    topology = Topology.from_yaml(odd_yaml)
    assert Topology.from_dict(topology.to_dict()) == topology
    detector = Detector(topology)
    assert detector.strides == (4, 8)
    assert topology.activation == "LeakyReLU(0.1)"


def test_anchor_count_gives_a_start_for_every_level() -> None:
    topology = Topology.from_yaml("yolov5-p2")
    assert len(topology.anchors) == 4
    assert all(len(row) == 6 and min(row) > 0 for row in topology.anchors)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": [[-1, 1, "Conf", [16, 3, 2]]]}, "block 0: unknown block 'Conf'"),
        ({"backbone": [[-1, 1, "__import__('os').system('true')", []]]}, "unknown block"),
        ({"backbone": [[-1, 1, "Conv"]]}, "block 0: expected"),
        ({"backbone": [[3, 1, "Conv", [16]]]}, "no earlier block 3"),
        ({"backbone": [["a", 1, "Conv", [16]]]}, "'from'"),
        ({"backbone": [[-1, 0, "Conv", [16]]]}, "repeats"),
        ({"backbone": [[-1, 1, "Conv", []]]}, "width"),
        ({"backbone": [[-1, 1, "Conv", ["16"]]]}, "width"),
        ({"backbone": [[-1, 1, "Conv", [16]], [[0, 0], 1, "Conv", [16]]]}, "Concat"),
        ({"backbone": None}, "backbone"),
        ({"head": []}, "head"),
        ({"head": [[-1, 1, "Conv", [16]]]}, "Detect"),
        ({"head": [[[0, 1], 1, "Detect", []]]}, "2 levels"),
        ({"nc": 0}, "nc"),
        ({"nc": "two"}, "nc"),
        ({"anchors": [[1, 2, 3]]}, "anchors"),
        ({"anchors": "many"}, "anchors"),
        ({"activation": "nn.Evil()"}, "Evil"),
        ({"width_multiple": -1}, "width_multiple"),
        ({"depth_multiple": "big"}, "depth_multiple"),
        ({"channel_multiple": 1.5}, "channel_multiple"),
        ({"channel_multiple": 10**9}, "channel_multiple"),
        ({"ch": 10**400}, "ch must be"),
        ({"nc": 30_000_000}, "nc must be a whole number from 1 to 100,000"),
        ({"nc": 10**400}, "nc"),
        ({"nc": float("inf")}, "nc"),
        ({"nc": "x" * 6000}, "nc"),
        ({"anchors": 10**12}, "anchors"),
        ({"anchors": 1e12}, "anchors"),
        ({"anchors": [[1e12, 1]]}, "anchor"),
        ({"anchors": [[10**400, 1]]}, "anchors"),
        ({"anchors": [[float("nan"), 1]]}, "anchor"),
        ({"anchors": [[0, 1]]}, "anchor"),
        ({"anchors": [[1, 2] * 1000]}, "anchors"),
        ({"depth_multiple": float("inf")}, "depth_multiple"),
        ({"depth_multiple": float("nan")}, "depth_multiple"),
        ({"depth_multiple": 10**400}, "depth_multiple"),
        ({"depth_multiple": 1e6}, "depth_multiple"),
        ({"depth_multiple": 999}, "repeats"),
        ({"width_multiple": 10**400}, "width_multiple"),
        ({"width_multiple": 999, "backbone": [[-1, 1, "Conv", [1000]]]}, "block 0"),
        ({"activation": ["x"] * 999}, "activation"),
        ({"backbone": [[-1, 10**6, "Bottleneck", [16]]]}, "repeats"),
        ({"backbone": [[-1, 10**400, "Bottleneck", [16]]]}, "repeats"),
        ({"backbone": [[-1, 900, "Bottleneck", [16]]] * 10}, "repeats"),
        ({"backbone": [[-1, 1, "Conv", [16]]] * 6000}, "blocks"),
        ({"backbone": [[-1, 1, "Conv", [10**9]]]}, "width"),
        ({"backbone": [[-1, 1, "Conv", [16, 10**400]]]}, "arguments"),
        ({"backbone": [[-1, 1, "Conv", [16, float("nan")]]]}, "arguments"),
        ({"backbone": [[-1, 1, "Conv", [16, 3, {}]]]}, "invalid arguments"),
        ({"backbone": [[-1, 1, "SPP", [16, [5] * 999]]]}, "arguments"),
        ({"backbone": [["x" * 6000, 1, "Conv", [16]]]}, "'from'"),
        ({"backbone": [[10**400, 1, "Conv", [16]]]}, "no earlier block"),
        ({"backbone": [[-1, 1, "x" * 6000, [16]]]}, "unknown block"),
        ({"backbone": [[-1, 1, ["Conv"], [16]]]}, "unknown block"),
        ({"backbone": [["x" * 6000]]}, "block 0: expected"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=r"m\.yaml") as error:
        parse_topology(config(**changes), "m.yaml")
    check_sentence(error.value, words)


@pytest.mark.parametrize(
    "row",
    [
        [[-1, 0], 1, "Concat", [5]],
        [[-1, 0], 1, "Concat", ["x"]],
        [[-1, 0], 1, "Concat", [[1]]],
        [-1, 1, "Conv", [16, 3, "x"]],
        [-1, 1, "Conv", [16, 3, 1, None, 0]],
        [-1, 1, "Conv", [16, 3, 1, None, 5]],
        [-1, 1, "Conv", [16, 3, 1, 1, 1, 1, "x" * 6000]],
        [-1, 1, "Conv", [16, [3]]],
        [-1, 1, "Conv", [16, -3]],
        [-1, 1, "Conv", [16, 3, 0]],
        [-1, 1, "nn.MaxPool2d", ["x"]],
        [-1, 1, "nn.MaxPool2d", []],
        [-1, 1, "nn.MaxPool2d", [0]],
        [-1, 1, "nn.MaxPool2d", [2, 2, 60000]],
        [-1, 1, "nn.Upsample", ["x"]],
        [-1, 1, "nn.Upsample", [None, "x"]],
        [-1, 1, "nn.Upsample", [None, 2, "x" * 6000]],
        [-1, 1, "nn.ZeroPad2d", [["x"]]],
        [-1, 1, "nn.BatchNorm2d", [1, 2, 3]],
        [-1, 1, "C3", [16, "x", "y"]],
        [-1, 1, "C3", [16, True, 1, 0]],
        [-1, 1, "C3", [16, True, 1, -1.0]],
        [-1, 1, "SPP", [16, 5]],
        [-1, 1, "SPP", [16, ["x"]]],
        [-1, 1, "SPPF", [16, [5]]],
        [-1, 1, "SPPF", [16, 4]],
        [-1, 1, "C3TR", [6]],
        [-1, 1, "GhostBottleneck", [1]],
        [-1, 1, "DWConvTranspose2d", [16, "x"]],
        [-1, 1, "BottleneckCSP", [16, True, 1, 0.5, "x" * 6000]],
        [-1, 1, "Conv", [60000, 1000]],
        [-1, 1, "C3", [16, True, 1, 60000]],
    ],
    ids=lambda row: f"{row[2]} {row[3]}"[:30],
)
def test_strange_arguments_are_refused(row: list[Any]) -> None:
    first = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 1]]]
    after = [-1, 1, "Conv", [16]]
    try:
        detector = Detector(parse_topology(config(backbone=[*first, row, after]), "m.yaml"))
    except UserError as error:
        check_sentence(error)
    else:  # what can be built can be used
        assert all(level.isfinite().all() for level in detector.eval()(torch.zeros(1, 3, 64, 64)))


def test_a_huge_network_is_refused_before_it_takes_memory() -> None:
    rows = [[-1, 1, "Conv", [12000, 3]], [-1, 1, "Conv", [6000, 3]]]
    topology = parse_topology(config(backbone=rows), "m.yaml")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"would have [\d,]+ parameters") as caught:
        Detector(topology)
    check_sentence(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"
    with torch.device("meta"):
        assert Detector(topology).nc == 2, "without memory for its tensors it can be built, to be given a file's"


def test_a_count_of_anchors_has_a_limit() -> None:
    with pytest.raises(UserError, match="anchors must be a count"):
        Topology.from_yaml("yolov5n", anchors=10**12)


def test_arguments_that_a_block_does_not_take_are_named() -> None:
    with pytest.raises(UserError, match=r"Block 0 \(Conv\)"):
        Detector(parse_topology(config(backbone=[[-1, 1, "Conv", [16, "three"]]]), "m.yaml"))


def test_blocks_that_do_not_fit_are_refused() -> None:
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [[-1, 0], 1, "Concat", [1]]]
    with pytest.raises(UserError, match="fit together"):
        Detector(parse_topology(config(backbone=rows), "m.yaml"))


@pytest.mark.parametrize("text", [b"a: [1", b"- 1", *HOSTILE.values()], ids=lambda text: repr(text[:20]))
def test_broken_files_are_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError) as caught:
        Topology.from_yaml(path)
    check_sentence(caught.value, "broken.yaml")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="yolov5s-ghost"):
        Topology.from_yaml("yolov9000")


def test_broken_stored_topology_is_refused() -> None:
    data = Topology.from_yaml("yolov5n").to_dict()
    for broken in ({}, {**data, "blocks": [[1]]}, {**data, "blocks": data["blocks"][:-1]}, {**data, "nc": "x"}):
        with pytest.raises(UserError, match="stored topology"):
            Topology.from_dict(broken)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nn.SiLU()", "SiLU"),
        ("SiLU", "SiLU"),
        ("torch.nn.ReLU(inplace=True)", "ReLU"),
        ("nn.LeakyReLU(0.1)", "LeakyReLU(0.1)"),
        ("nn.LeakyReLU(negative_slope=0.2, inplace=True)", "LeakyReLU(0.2)"),
        ("LeakyReLU", "LeakyReLU(0.01)"),
    ],
)
def test_activations(text: str, canonical: str) -> None:
    assert canonical_activation(text) == canonical
    assert canonical_activation(canonical) == canonical


@pytest.mark.parametrize("text", ["nn.LeakyReLU(print())", "nn.LeakyReLU(x)", "os.system('true')", ""])
def test_activations_are_never_evaluated(text: str) -> None:
    with pytest.raises(UserError):
        canonical_activation(text)


def test_widths_are_replaced_by_the_width_that_was_designed() -> None:
    topology = Topology.from_yaml("yolov5n", nc=2)
    assert topology.widths == (16, 32, 64, 128, 256)
    narrow = topology.with_widths({width: width // 2 for width in topology.widths})
    assert narrow.widths == (8, 16, 32, 64, 128)
    for block, other in zip(topology.blocks, narrow.blocks, strict=True):
        assert (block.sources, block.repeats, block.kind, block.args[1:]) == (
            other.sources,
            other.repeats,
            other.kind,
            other.args[1:],
        )
    assert narrow.blocks[-1] == topology.blocks[-1]  # the head has no width
