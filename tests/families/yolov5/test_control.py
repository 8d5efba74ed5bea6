"""The control of a run before its training: its FLOPs, its widths, where its weights come from, how long it is due."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from law_subjects import NARROW, detector_named
from secateur.checkpoints.training import known_epochs
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.yolov5.architecture import topology_of
from secateur.families.yolov5.control import (
    TOLERANCE,
    Narrowing,
    check_narrowing,
    narrow_start,
    narrow_widths,
)
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.networks.plain_module import PlainModule


def flops_of(topology: Topology, size: int) -> int:
    with torch.device("meta"):
        return count(Detector(topology), size).flops


def cut_to(dense: Checkpoint, share: float) -> Checkpoint:
    """A detector of other widths than those that one multiplier gives, with about this share of the widths."""
    widths = {
        width: max(2, round(width * share * (1.15 if number % 2 else 0.85) / 2) * 2)
        for number, width in enumerate(topology_of(dense).widths)
    }
    return Checkpoint.of(Detector(topology_of(dense).with_widths(widths), dense.names))


@pytest.mark.parametrize(("name", "share"), [("yolov5n", 0.5), ("yolov5s", 0.7)])
def test_stock_networks_come_within_a_percent_in_multiples_of_eight(name: str, share: float) -> None:
    dense = Checkpoint.of(Detector(Topology.from_yaml(name, nc=3)))
    final = cut_to(dense, share)
    found = narrow_widths(dense, final, 320)
    narrow = topology_of(dense).with_widths(found.widths)
    assert flops_of(narrow, 320) == found.flops
    assert found.target == count(final.build(), 320).flops
    assert abs(found.share - 1) <= TOLERANCE
    assert found.multiple == 8
    assert found.note() == ""
    for designed, width in found.widths.items():
        assert width % 8 == 0
        assert abs(width - designed * found.multiplier) < 8  # rounded up or down, no farther
    # The depth is the dense detector's.
    assert [block.repeats for block in narrow.blocks] == [block.repeats for block in topology_of(dense).blocks]


def priced(patch: pytest.MonkeyPatch, dense: Checkpoint, size: int, flops: int) -> None:
    """Lets the final detector have these FLOPs; it is the first that is counted."""
    first = iter([dataclasses.replace(count(dense.build(), size), flops=flops)])
    patch.setattr("secateur.families.yolov5.control.count", lambda *a: next(first, None) or count(*a))


@pytest.mark.parametrize("name", sorted(NARROW))
def test_every_topology_can_be_made_narrow(name: str) -> None:
    check_narrowing(Checkpoint.of(detector_named(name)))


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny"])
def test_very_narrow_networks_too_cost_no_more_than_allowed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Checkpoint.of(detector_named(name))
    priced(monkeypatch, dense, 64, int(0.7 * count(dense.build(), 64).flops))
    found = narrow_widths(dense, dense, 64)
    assert 0.9 < found.share <= 1 + TOLERANCE
    Detector(topology_of(dense).with_widths(found.widths))


def test_a_final_detector_of_the_dense_size_has_the_dense_one_as_its_control() -> None:
    dense = Checkpoint.of(detector_named("yolov5n"))
    found = narrow_widths(dense, dense, 64)
    assert all(a == b for a, b in found.widths.items())
    assert (found.share, found.multiplier) == (1.0, 1.0)


def test_a_target_out_of_reach_is_told_in_the_title(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Checkpoint.of(detector_named("yolov5n"))
    priced(monkeypatch, dense, 64, 1000)
    found = narrow_widths(dense, dense, 64)
    assert found.share > 1
    assert found.note().endswith(" % of the FLOPs")


def test_a_narrowing_survives_json() -> None:
    found = Narrowing(0.5, 8, {16: 8, 32: 16}, 99, 100)
    assert Narrowing.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_tensors_that_fit_are_taken_over_and_the_rest_is_fresh(tiny_cfg: Path) -> None:
    torch.manual_seed(3)
    dense = Checkpoint.of(Detector(Topology.from_yaml(tiny_cfg)), image_size=64)
    widths = {width: width for width in topology_of(dense).widths}
    widths[max(widths)] //= 2
    narrowing = Narrowing(0.5, 8, widths, 1, 1)
    start = narrow_start(dense, dense.half(), narrowing, seed=1)
    again = narrow_start(dense, dense.half(), narrowing, seed=1)
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in start.tensors.items())
    assert (start.image_size, start.names, start.strides) == (64, dense.names, dense.strides)
    assert torch.equal(start.tensors["model.0.conv.weight"], dense.tensors["model.0.conv.weight"].half().float())
    wide, narrow = (checkpoint.tensors["model.5.conv.weight"] for checkpoint in (dense, start))
    assert narrow.shape[0] == wide.shape[0] // 2
    assert not torch.equal(narrow, wide[: len(narrow)])
    assert not start.history
    start.build()  # shapes and topology belong together


def test_epochs_are_known_from_history_or_from_training_notes() -> None:
    checkpoint = Checkpoint.of(detector_named("yolov5n"))
    assert known_epochs(checkpoint) is None
    assert known_epochs(dataclasses.replace(checkpoint, training={"epochs": 300})) == 300
    ours = dataclasses.replace(checkpoint, training={"settings": {"epochs": 40}, "epoch": 12})
    assert known_epochs(ours) == 40
    stages = (
        HistoryEntry("train", {"epochs": 30}),
        HistoryEntry("prune", {"criterion": "l1"}),
        HistoryEntry("finetune", {"epochs": 10}),
    )
    assert known_epochs(dataclasses.replace(ours, history=stages)) == 40
    healed = (HistoryEntry("prune", {"criterion": "l1"}), HistoryEntry("heal", {"heal_steps": "auto"}))
    assert known_epochs(dataclasses.replace(ours, history=healed)) is None  # what it notes last is its healing


def test_other_architectures_get_one_sentence() -> None:
    checkpoint = Checkpoint(PlainModule("Net"), {}, {}, ())
    with pytest.raises(UserError, match=r"scales the widths of a YOLOv5 network, but this is a .*Omit --control"):
        check_narrowing(checkpoint)
