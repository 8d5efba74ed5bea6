"""What a network of any task offers: it is saved and built again without names, strides or a word about boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.family import FAMILIES, Family, family_of
from secateur.families.loading import load_checkpoint
from secateur.networks.architecture import (
    DescribedNetwork,
    channels_of,
    example_image,
    fused,
    is_described,
    names_of,
    strides_of,
)
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.networks.tensors import set_tensors_


@dataclass(frozen=True)
class Sorter:
    """What a classifier of grey images is built from."""

    nc: int
    width: int = 8
    channels: int = 1
    kind: ClassVar[str] = "sorter"

    def build(self, names: Mapping[int, str]) -> nn.Module:
        return Classifier(self)

    def with_classes(self, nc: int) -> Sorter:
        return dataclasses.replace(self, nc=nc)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sorter:
        return cls(**data)


class Classifier(nn.Module):
    """Neither names nor strides, nor a way of its own to fold norms."""

    def __init__(self, architecture: Sorter) -> None:
        super().__init__()
        self.architecture = architecture
        self.body = nn.Sequential(nn.Conv2d(1, architecture.width, 3, 2), nn.BatchNorm2d(architecture.width), nn.ReLU())
        self.head = nn.Linear(architecture.width, architecture.nc)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images).mean((2, 3)))
        return logits

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 1, image_size or 20, image_size or 20),)

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        set_tensors_(self, tensors)


class SorterFamily(Family):
    """No verb but what a file needs."""

    kind, title, architecture = Sorter.kind, "sorter", Sorter


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    list(FAMILIES)
    monkeypatch.setitem(FAMILIES._methods, Sorter.kind, SorterFamily())


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network = Sorter(nc=4).build({})
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    return network.eval()


def test_a_classifier_is_saved_and_built_again(network: nn.Module, tmp_path: Path) -> None:
    assert is_described(network) and isinstance(network, DescribedNetwork)
    checkpoint = Checkpoint.of(network)
    assert (checkpoint.architecture, checkpoint.names, checkpoint.strides) == (Sorter(nc=4), {}, ())
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert (loaded.architecture, loaded.names, loaded.strides, loaded.nc) == (Sorter(nc=4), {}, (), 4)
    assert family_of(loaded).title == "sorter"
    images = torch.rand(2, 1, 30, 20)
    with torch.no_grad():
        assert torch.equal(loaded.build()(images), network(images))
        assert torch.equal(loaded.into(Sorter(nc=4).build({})).eval()(images), network(images))


def test_a_cut_classifier_comes_back_as_narrow_as_it_is(network: nn.Module, tmp_path: Path) -> None:
    small = secateur.prune(Checkpoint.of(network), criterion="l2", params=0.6, round_to=1)
    save_checkpoint(small, tmp_path / "a.safetensors")
    back = load_checkpoint(tmp_path / "a.safetensors").build()
    assert back.head.in_features == back.body[0].out_channels < 8
    assert back(torch.rand(1, 1, 20, 20)).shape == (1, 4)


def test_it_is_described_and_counted(network: nn.Module) -> None:
    assert names_of(network) == {} and strides_of(network) == () and channels_of(network) == 1
    assert example_image(network).shape == (1, 1, 20, 20)
    cost = count(network, (21, 33))  # no stride: any size will do
    assert cost.flops == 2 * (10 * 16 * 8 * 9 + 8 * 4)
    assert cost.parameters == 8 * 9 + 8 + 2 * 8 + 8 * 4 + 4


def test_names_and_other_classes_are_given_to_it(network: nn.Module) -> None:
    names = {0: "ant", 1: "bee", 2: "cat", 3: "dog"}
    checkpoint = Checkpoint.of(network, names=names)
    assert checkpoint.names == names and checkpoint.build_for(names).head.out_features == 4
    fresh = checkpoint.build_for({0: "cat", 1: "elk", 2: "dog"})
    assert fresh.head.out_features == 3 and torch.equal(fresh.body[0].weight, network.get_parameter("body.0.weight"))


def test_a_copy_for_inference_is_frozen_where_the_network_has_none_of_its_own(network: nn.Module) -> None:
    copy = fused(network.train())
    assert not copy.training and network.training
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())

    class Folding(Classifier):
        def fused(self) -> str:
            return f"folded of {self.architecture.nc} classes"

    assert fused(Folding(Sorter(nc=4))) == "folded of 4 classes"


def test_boxes_are_refused_in_a_sentence(network: nn.Module) -> None:
    with pytest.raises(UserError, match="Networks of the family 'sorter' do not predict boxes"):
        secateur.predict(Checkpoint.of(network), torch.rand(3, 20, 20), device="cpu")
