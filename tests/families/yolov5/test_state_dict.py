"""Bare state dicts, with the YAML of their network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from secateur.deploy.exporters import export
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import topology_of
from secateur.families.yolov5.formats.state_dict import read_state
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.settings import Guards
from secateur.pruning.surgery import cut
from tiny_network import TINY


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(Topology.from_yaml("yolov5n", nc=3)).eval()


def same_outputs(found: Checkpoint, detector: Detector) -> None:
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.build().predict(image), detector.predict(image), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_it_is_the_network(detector, tmp_path: Path, prefix: str, inside: str | None) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in detector.state_dict().items()}
    torch.save(state if inside is None else {inside: state, "epoch": 3}, tmp_path / "a.pt")
    found = load_checkpoint(tmp_path / "a.pt", "yolov5n")
    assert found.nc == 3 and found.names == {0: "class0", 1: "class1", 2: "class2"}
    same_outputs(found, detector)


def test_a_cut_one_keeps_its_widths(detector, tmp_path: Path) -> None:
    graph = trace(detector)
    plan = allocate(graph, torch.rand(graph.units).numpy(), Budget("params", 0.6), Guards())
    small = cut(detector, graph, plan)
    torch.save(small.state_dict(), tmp_path / "a.pt")
    same_outputs(load_checkpoint(tmp_path / "a.pt", "yolov5n.yaml"), small)


def test_half_precision_and_missing_anchors(detector, tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in detector.state_dict().items() if not name.endswith("anchors")}
    torch.save(state, tmp_path / "a.pt")
    found = load_checkpoint(tmp_path / "a.pt", "yolov5n")
    torch.testing.assert_close(found.tensors["model.24.anchors"], detector.head.anchors)


@pytest.mark.parametrize(
    ("state", "cfg", "message"),
    [
        ({"fc.weight": torch.zeros(2, 2)}, "yolov5n", "tensors of another network"),
        (Detector(Topology.from_yaml("yolov3-tiny", nc=3)).state_dict(), "yolov5n", "do not match"),
        (Detector(Topology.from_yaml("yolov5n", nc=3)).state_dict(), "nothing.yaml", "nothing.yaml"),
        (nn.Linear(2, 2).state_dict(), "", "convert it with its YAML: secateur export --cfg"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, state: dict, cfg: str, message: str) -> None:
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(tmp_path / "a.pt", cfg)
    assert "\n" not in str(caught.value)


def test_anchors_that_the_network_leaves_to_be_computed_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "open.yaml").write_text(yaml.safe_dump({**TINY, "anchors": 3}))
    known = Detector(Topology.from_yaml(tmp_path / "open.yaml"))
    known.head.anchors.mul_(1.5)
    torch.save(known.state_dict(), tmp_path / "whole.pt")
    found = load_checkpoint(tmp_path / "whole.pt", tmp_path / "open.yaml")
    assert torch.equal(found.build().head.anchors, known.head.anchors) and not topology_of(found).anchors_pending
    torch.save({k: v for k, v in known.state_dict().items() if not k.endswith("anchors")}, tmp_path / "less.pt")
    with pytest.raises(
        UserError, match=r"less\.pt has no anchors, and .*open\.yaml leaves them to be computed\. Write"
    ):
        load_checkpoint(tmp_path / "less.pt", tmp_path / "open.yaml")


def test_other_files_know_their_network(detector, tmp_path: Path) -> None:
    save_checkpoint(Checkpoint.of(detector), tmp_path / "a.safetensors")
    same_outputs(load_checkpoint(tmp_path / "a.safetensors", "yolov5s"), detector)
    export(detector, tmp_path / "stock.pt", 64, ExportSettings(format="yolov5"))
    same_outputs(load_checkpoint(tmp_path / "stock.pt", "yolov5s"), detector)


def test_a_value_that_stands_for_many_is_refused(tmp_path: Path) -> None:
    torch.save({"model.0.conv.weight": torch.zeros(1).expand(100_000, 10_000)}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="its tensors would need 4,000,000,000 bytes"):
        read_state(tmp_path / "state.pt")
