"""Where trainings start: what is kept of weights, and when the head starts afresh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.starting import for_classes, starting_point
from secateur.families.yolov5.architecture import YOLOv5, topology_of
from secateur.networks.checkpoint import Checkpoint, save_checkpoint

NAMES = {0: "disc", 1: "square", 2: "triangle"}
HEAD = "model.11.m"


def is_trunk(name: str) -> bool:
    return not name.startswith(HEAD)


@pytest.fixture
def masked(tiny_weights: Path, tmp_path: Path) -> Checkpoint:
    """Half of all convolution weights are held at zero, a plan is remembered, and the file lies at `masked_file`."""
    checkpoint = load_checkpoint(tiny_weights)
    masks = {name: torch.rand(t.shape) > 0.5 for name, t in checkpoint.tensors.items() if t.ndim == 4}
    checkpoint = replace(checkpoint, masks=masks, plan={"keep": [1]})
    save_checkpoint(checkpoint, tmp_path / "masked.safetensors")
    return checkpoint


def test_weights_alone_keep_everything(masked: Checkpoint, tmp_path: Path) -> None:
    start = starting_point(str(tmp_path / "masked.safetensors"), "", NAMES)
    assert all(torch.equal(start.tensors[name], tensor) for name, tensor in masked.tensors.items())
    assert start.masks.keys() == masked.masks.keys()
    assert start.plan == masked.plan


def test_a_narrow_network_stays_narrow_with_other_classes(tiny_weights: Path, tmp_path: Path) -> None:
    narrow = load_checkpoint(tiny_weights)
    wide = replace(topology_of(narrow).blocks[6], args=(1024, 5))
    blocks = tuple(wide if i == 6 else block for i, block in enumerate(topology_of(narrow).blocks))
    # The topology says how wide it was before a cut, the tensors how wide it is.
    cut = replace(narrow, architecture=YOLOv5(replace(topology_of(narrow), blocks=blocks)))
    save_checkpoint(cut, tmp_path / "cut.safetensors")
    start = starting_point(str(tmp_path / "cut.safetensors"), "", {0: "a", 1: "b"})
    assert all(torch.equal(start.tensors[name], t) for name, t in narrow.tensors.items() if is_trunk(name))
    assert start.build().nc == 2
    assert start.names == {0: "a", 1: "b"}


@pytest.mark.parametrize("names", [{0: "a", 1: "b"}, {0: "square", 1: "disc", 2: "star"}, {0: "a", 1: "b", 2: "c"}])
def test_a_head_that_does_not_know_the_classes_starts_afresh(
    names: dict[int, str], masked: Checkpoint, tmp_path: Path
) -> None:
    start = starting_point(str(tmp_path / "masked.safetensors"), "", names)
    assert start.names == names
    assert start.plan is None
    same = {name for name, t in start.tensors.items() if torch.equal(t, masked.tensors[name])}
    assert same == {name for name in masked.tensors if is_trunk(name)}
    assert set(masked.masks) - set(start.masks) == {f"{HEAD}.0.weight", f"{HEAD}.1.weight"}


def test_a_head_that_knows_the_classes_in_another_order_is_put_into_theirs(
    masked: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {0: "triangle", 1: "Disc", 2: "square"}
    with caplog.at_level("INFO", "secateur"):
        start = starting_point(str(tmp_path / "masked.safetensors"), "", names)
    assert "the class outputs of the head are reordered" in caplog.text and "New head" not in caplog.text
    assert start.names == names
    assert start.plan == masked.plan
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before, after = masked.build().predict(images), start.build().predict(images)
    assert torch.equal(after, before[..., [0, 1, 2, 3, 4, 7, 5, 6]])
    # A mask belongs to the weights that it holds at zero, wherever they go.
    held = {name: mask.clone() for name, mask in masked.masks.items() if not is_trunk(name)}
    for name, mask in held.items():
        rows = mask.view(-1, 8, *mask.shape[1:])[:, [0, 1, 2, 3, 4, 7, 5, 6]].reshape(mask.shape)
        assert torch.equal(start.masks[name], rows)
    assert len(held) == 2 and start.masks.keys() == masked.masks.keys()


def test_there_and_back_is_the_same_detector(tiny_weights: Path) -> None:
    checkpoint = load_checkpoint(tiny_weights)
    other = for_classes(checkpoint, {0: "square", 1: "triangle", 2: "disc"})
    back = for_classes(other, NAMES)
    assert not torch.equal(other.tensors[f"{HEAD}.0.weight"], checkpoint.tensors[f"{HEAD}.0.weight"])
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())


def test_a_data_set_without_names_takes_none_away(tiny_weights: Path) -> None:
    assert starting_point(str(tiny_weights), "", {0: "class0", 1: "class1", 2: "class2"}).names == NAMES


def test_names_that_say_nothing_are_taken_over(tiny_weights: Path, tmp_path: Path) -> None:
    unnamed = replace(load_checkpoint(tiny_weights), names={0: "class0", 1: "class1", 2: "class2"})
    save_checkpoint(unnamed, tmp_path / "unnamed.safetensors")
    start = starting_point(str(tmp_path / "unnamed.safetensors"), "", NAMES)
    assert start.names == NAMES
    assert all(torch.equal(start.tensors[name], tensor) for name, tensor in unnamed.tensors.items())


def test_cfg_must_be_the_network_of_the_weights(tiny_weights: Path, tiny_cfg: Path) -> None:
    assert starting_point(str(tiny_weights), str(tiny_cfg), NAMES).nc == 3
    with pytest.raises(UserError, match="Omit --cfg"):
        starting_point(str(tiny_weights), "yolov5s", NAMES)


def test_the_same_seed_gives_the_same_fresh_network(tiny_cfg: Path) -> None:
    first, again, other = (starting_point("", str(tiny_cfg), NAMES, seed).tensors for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.0.conv.weight"], other["model.0.conv.weight"])


def test_nothing_to_start_from() -> None:
    with pytest.raises(UserError, match="No network is given"):
        starting_point("", "", NAMES)


def test_a_fresh_network_takes_the_number_of_anchors(tiny_cfg: Path) -> None:
    start = starting_point("", str(tiny_cfg), NAMES, options={"anchors": 4})
    assert start.build().na == 4 and topology_of(start).anchors_pending


def test_a_model_file_with_a_number_of_anchors_has_them_computed_for_weights_too(
    tiny_weights: Path, tiny_cfg: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(tiny_cfg.read_text())
    assert not topology_of(starting_point(str(tiny_weights), str(tiny_cfg), NAMES)).anchors_pending
    count = len(content["anchors"][0]) // 2
    (tmp_path / "open.yaml").write_text(yaml.safe_dump({**content, "anchors": count}))
    start = starting_point(str(tiny_weights), str(tmp_path / "open.yaml"), NAMES)
    assert topology_of(start).anchors_pending and start.build().topology.anchors_pending
    assert not topology_of(starting_point(str(tiny_weights), "", NAMES)).anchors_pending
