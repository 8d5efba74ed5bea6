"""Any network behind a checkpoint: architectures of a user's file, and plain modules that go back into a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.families.detection.network import DetectionNetwork
from secateur.families.family import FAMILIES
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import YOLOv5
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.layers import group_width, match_numbers_
from secateur.networks.architecture import Architecture, DescribedNetwork, is_described
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.registry import PLUGINS

PLUGIN = '''
"""A detector of three layers: one box a cell."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from secateur.families.family import FAMILIES, Family
from secateur.networks.tensors import set_tensors_


@dataclass(frozen=True)
class Tiny:
    nc: int
    width: int = 8
    channels: int = 3
    kind: ClassVar[str] = "tiny"

    def build(self, names):
        return TinyNetwork(self, names)

    def with_classes(self, nc):
        return Tiny(nc, self.width)

    def to_dict(self):
        return {"nc": self.nc, "width": self.width}

    @classmethod
    def from_dict(cls, data):
        return cls(int(data["nc"]), int(data["width"]))


class TinyNetwork(nn.Module):
    strides = (4.0,)

    def __init__(self, architecture, names):
        super().__init__()
        self.architecture, self.names = architecture, dict(names)
        self.one = nn.Conv2d(3, architecture.width, 3, 2, 1)
        self.two = nn.Conv2d(architecture.width, architecture.width, 3, 2, 1)
        self.head = nn.Conv2d(architecture.width, 5 + architecture.nc, 1)
        self.register_buffer("middle", torch.tensor([0.5]), persistent=False)

    nc = property(lambda self: self.architecture.nc)

    def forward(self, images):
        return self.head(self.two(self.one(images).relu()).relu()) * self.middle

    def example_inputs(self, image_size=None):
        return (torch.zeros(1, 3, image_size or 16, image_size or 16),)

    def set_tensors(self, tensors):
        set_tensors_(self, tensors)


class TinyFamily(Family):
    kind, title, architecture = "tiny", "tiny detector", Tiny


FAMILIES.register("tiny")(TinyFamily())
'''

SAVE = """
import sys, torch
from secateur.families.family import FAMILIES
from secateur.networks.architecture import is_described
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
torch.manual_seed(0)
network = FAMILIES["tiny"].architecture.from_dict({"nc": 2, "width": 8}).build({0: "cat", 1: "dog"})
assert is_described(network)
keep = torch.tensor([0, 3, 4])
tensors = network.state_dict()
tensors |= {"one.weight": network.one.weight[keep], "one.bias": network.one.bias[keep]}
tensors["two.weight"] = network.two.weight[:, keep]
network.set_tensors(tensors)
save_checkpoint(Checkpoint.of(network, image_size=32), sys.argv[1])
torch.save(network.eval()(torch.ones(1, 3, 16, 16)).detach(), sys.argv[2])
"""

LOAD = """
import sys, torch
from secateur.families.loading import load_checkpoint
from secateur.families.summary import summary
from secateur.families.yolov5.architecture import topology_of
checkpoint = load_checkpoint(sys.argv[1])
network = checkpoint.build()
print(torch.equal(network(torch.ones(1, 3, 16, 16)), torch.load(sys.argv[2])), network.one.out_channels)
print(checkpoint.names, checkpoint.strides, checkpoint.image_size, checkpoint.nc)
print(summary(network, 32, {"one": 130_000_000}).line())
other = checkpoint.build_for({0: "a", 1: "b", 2: "c"})
print(other.head.weight.shape, torch.equal(other.one.weight, network.one.weight), other.nc)
try:
    topology_of(checkpoint)
except Exception as error:
    print(error)
"""


def run(code: str, *arguments: Path, plugin: Path | None = None) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({PLUGINS: str(plugin)} if plugin else {})}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_an_architecture_of_a_users_file(tmp_path: Path) -> None:
    plugin, file, rows = tmp_path / "tiny.py", tmp_path / "a.safetensors", tmp_path / "rows.pt"
    plugin.write_text(PLUGIN)
    run(SAVE, file, rows, plugin=plugin)
    lines = run(LOAD, file, rows, plugin=plugin).splitlines()
    assert lines[0] == "True 3"
    assert lines[1] == "{0: 'cat', 1: 'dog'} (4.0,) 32 2"
    assert lines[2] == "3 layers, 371 parameters, 371 gradients, 0.13 GFLOPs at 32 px"
    assert lines[3] == "torch.Size([8, 8, 1, 1]) True 3"
    assert "not a network of the YOLOv5 family" in lines[4]
    with pytest.raises(UserError, match=f"unknown architecture 'tiny'.*{PLUGINS}"):
        load_checkpoint(file)


def test_the_detector_is_a_detection_network() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=2))
    assert isinstance(detector, DescribedNetwork)
    assert isinstance(detector, DetectionNetwork)
    assert is_described(detector)
    architecture = detector.architecture
    assert isinstance(architecture, Architecture)
    assert architecture == YOLOv5(detector.topology)
    assert {"yolov5", "module"} <= set(FAMILIES)
    (images,) = detector.example_inputs()
    assert images.shape == (1, 3, 64, 64)
    assert detector.double().example_inputs(96)[0].dtype == torch.float64
    assert not is_described(nn.Conv2d(1, 1, 1))


def test_a_second_detector_of_one_architecture_takes_the_strides_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    passes = []
    run_shapes = Detector.run_shapes
    monkeypatch.setattr(Detector, "run_shapes", lambda self, *size: passes.append(size) or run_shapes(self, *size))
    first = checkpoint.build()
    assert len(passes) == 2  # for the strides, and for what fits together
    second = checkpoint.build()
    assert len(passes) == 3
    assert isinstance(first, Detector) and isinstance(second, Detector)
    assert second.strides == first.strides == (8.0, 16.0, 32.0)
    assert torch.equal(second.head.anchors, first.head.anchors)
    fresh = [checkpoint.architecture.build({}), YOLOv5(checkpoint.architecture.topology).build({})]
    for detector in fresh:
        assert detector.strides == first.strides and torch.equal(detector.head.anchors, first.head.anchors)


def test_a_network_that_offers_too_little_is_named() -> None:
    class Half(nn.Module):
        architecture = YOLOv5(Topology.from_yaml("yolov5n"))
        names: dict[int, str] = {}  # noqa: RUF012

    with pytest.raises(UserError, match="Half has an architecture, but lacks example_inputs, set_tensors"):
        Checkpoint.of(Half())


def narrowed(layer: nn.Module, rows: int, columns: int) -> None:
    """Cuts a layer's weight by hand to its first rows and columns."""
    width = group_width(layer)
    layer.weight = nn.Parameter(layer.get_parameter("weight")[:rows, :columns].detach().clone())
    outputs = columns * (rows // width[0] if width else 1) if isinstance(layer, nn.ConvTranspose2d) else rows
    layer.bias = nn.Parameter(layer.get_parameter("bias")[:outputs].detach().clone())
    match_numbers_(layer, width)


class Mixed(nn.Module):
    """Grouped and transposed convolutions and linear layers, one of them used under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 32, 3, groups=8, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2, groups=4)
        self.down = nn.ConvTranspose2d(16, 6, 1)
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 2)
        self.again = self.second

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.up(self.inner(self.grouped(x)))).mean((2, 3))
        return self.again(self.first(x).relu())


def test_grouped_transposed_and_linear_layers_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = Mixed()
    torch.manual_seed(0)
    small = Mixed().eval()
    narrowed(small.grouped, 8, 3)
    narrowed(small.inner, 16, 2)
    narrowed(small.up, 16, 4)
    narrowed(small.down, 8, 5)
    narrowed(small.first, 7, 5)
    narrowed(small.second, 2, 7)
    save_checkpoint(Checkpoint.of(small, names={0: "a", 1: "b"}), tmp_path / "a.safetensors")
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    back = checkpoint.into(whole)
    assert isinstance(back, Mixed)
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(back(x), small(x))
    assert [repr(module) for module in back.modules()] == [repr(module) for module in small.modules()]
    assert back.again is back.second
    assert back.training
    assert whole.first.out_features == 12, "the network that was given is left alone"
    assert (checkpoint.names, checkpoint.nc) == ({0: "a", 1: "b"}, 2)
    assert "Mixed" in str(checkpoint)


def test_a_narrowed_resnet_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    narrow = torchvision.models.resnet50(width_per_group=12, num_classes=7).eval()
    save_checkpoint(Checkpoint.of(narrow).half(), tmp_path / "a.safetensors")
    back = load_checkpoint(tmp_path / "a.safetensors").into(torchvision.models.resnet50()).eval()
    assert {tensor.dtype for tensor in back.parameters()} == {torch.float32}
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(back(x), narrow.half().float()(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda network: network.register_parameter("more", nn.Parameter(torch.zeros(1))), "include the unknown more"),
        (lambda network: setattr(network, "down", nn.Identity()), "lack down.bias, down.weight"),
        (lambda network: setattr(network, "up", nn.ConvTranspose2d(32, 16, 3, groups=4)), "up.weight has the shape"),
        (
            lambda network: setattr(network, "inner", nn.Conv2d(12, 32, 3, groups=4)),
            "3 channels per group instead",
        ),
        (lambda network: setattr(network, "first", nn.Conv1d(6, 12, 1)), "first.weight has the shape"),
    ],
)
def test_tensors_of_another_network_are_refused(change: object, words: str) -> None:
    other = Mixed()
    assert callable(change)
    change(other)
    checkpoint = Checkpoint.of(other)
    with pytest.raises(UserError, match=words):
        checkpoint.into(Mixed())


def test_a_plain_module_is_not_built_by_its_file(tmp_path: Path) -> None:
    save_checkpoint(Checkpoint.of(Mixed()), tmp_path / "a.safetensors")
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    for attempt in (checkpoint.build, lambda: checkpoint.build_for({0: "a"})):
        with pytest.raises(UserError, match=r"Mixed.*secateur\.load\(path, network=\.\.\.\)|cannot be changed to"):
            attempt()
