"""Healing and training of a family that knows neither boxes nor files of a data set."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.checkpoints.channels import cut_channels
from secateur.checkpoints.heal import check_healing, heal
from secateur.checkpoints.training import train_checkpoint
from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.family import FAMILIES, Family
from secateur.families.loading import load_checkpoint
from secateur.families.reading import Reading
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.tensors import set_tensors_
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.importance import score
from secateur.pruning.settings import Guards
from secateur.pruning.statistics import collect
from secateur.steps.finetune import Finetune
from secateur.steps.heal import Heal
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings

NAMES = {0: "dark", 1: "bright"}
STEPS = HealSettings(heal_steps=60, heal_batch=8, heal_lr=0.003)


@dataclass(frozen=True)
class Stack:
    """An architecture of one network."""

    nc: int = 2
    channels: int = 3
    kind = "stack"

    def build(self, names: Mapping[int, str]) -> nn.Module:
        return Stacked()

    def with_classes(self, nc: int) -> Stack:
        return Stack(nc)

    def to_dict(self) -> dict[str, Any]:
        return {"nc": self.nc}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Stack:
        return cls(int(data["nc"]))


class Stacked(nn.Module):
    """Two convolutions and a linear layer; it answers with a dict."""

    strides: tuple[float, ...] = ()
    nc = 2
    decode = decode_above = predict = None

    def __init__(self) -> None:
        super().__init__()
        self.names = dict(NAMES)
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Linear(16, 2)

    @property
    def architecture(self) -> Stack:
        return Stack()

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 3, image_size or 16, image_size or 16),)

    def fused(self) -> Any:
        return copy.deepcopy(self).eval().requires_grad_(False)

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        set_tensors_(self, tensors)

    def forward(self, images: Tensor) -> dict[str, Any]:
        return {"answers": [self.fc(self.second(self.first(images)).mean((2, 3)))]}


@dataclass(frozen=True)
class Stacks:
    """Batches of a split."""

    split: Noise
    reading: Reading

    def __len__(self) -> int:
        return len(self.split) // self.reading.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(1000 * self.reading.seed + epoch)
        order = torch.randperm(len(self.split), generator=generator).tolist()
        size = self.reading.batch_size
        for number in range(start, len(self)):
            yield self.split.batch(order[number * size : (number + 1) * size])


@dataclass(frozen=True)
class Noise:
    """Images in memory; the label says which are bright."""

    places: tuple[int, ...] = tuple(range(48))

    def __len__(self) -> int:
        return len(self.places)

    def select(self, places: Sequence[int]) -> Noise:
        return Noise(tuple(self.places[place] for place in places))

    def signature(self) -> str:
        return str(self.places)

    def batch(self, numbers: Sequence[int]) -> Any:
        places = [self.places[number] for number in numbers]
        images = []
        for place in places:
            generator = torch.Generator().manual_seed(place)
            top = 256 if place % 2 else 128
            images.append(torch.randint(0, top, (3, 16, 16), dtype=torch.uint8, generator=generator))
        return SimpleNamespace(images=torch.stack(images), targets=torch.tensor([place % 2 for place in places]))

    def shuffled(self, reading: Reading) -> Stacks:
        return Stacks(self, reading)

    def ordered(self, reading: Reading) -> Iterable[Any]:
        for first in range(0, len(self), reading.batch_size):
            yield self.batch(range(first, min(first + reading.batch_size, len(self))))


@dataclass(frozen=True)
class StackHyp:
    """One hyper-parameter of its own."""

    gain: float = 1.0


@dataclass(frozen=True)
class NoiseData:
    """A data set."""

    file: Path = Path("noise")
    names: dict[int, str] = field(default_factory=lambda: dict(NAMES))
    splits: tuple[str, ...] = ("train", "val")
    labelled: bool = True
    one_class: bool = False
    nc: int = 2


class StackFamily(Family):
    """Knows splits; the rest is what every family has."""

    kind = "stack"
    title = "stack"
    architecture = Stack
    hyp = StackHyp

    def split(self, data: Any, name: str, **options: Any) -> Noise:
        return Noise()

    def head(self, network: nn.Module) -> tuple[str, ...]:
        return ("fc",)


class Blind(Family):
    """Without images."""

    kind = "stack"
    title = "stack"
    architecture = Stack


class Trainable(StackFamily):
    """With a loss, too."""

    def loss(self, network: nn.Module, settings: TrainSettings) -> Term:
        gain = settings.hyp.read(StackHyp).gain

        def term(raw: Any, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            value = gain * F.cross_entropy(raw["answers"][0], targets)
            return value * len(images), {"cls": value.detach()}

        return term


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Family:
    len(FAMILIES)  # they are found before one is added
    monkeypatch.setitem(FAMILIES._methods, "stack", StackFamily())
    return FAMILIES["stack"]


@pytest.fixture
def whole(family: Family) -> Checkpoint:
    torch.manual_seed(0)
    network = Stacked()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return Checkpoint.of(network)


@pytest.fixture
def small(whole: Checkpoint) -> Checkpoint:
    network = whole.build()
    graph = trace(network)
    plan = allocate(graph, score("l2", graph, collect(network, graph)), Budget("flops", 0.4), Guards(round_to=1))
    return cut_channels(whole, graph, plan)


@pytest.fixture
def context() -> Context:
    return Context(16, batch_size=8, workers=0, data=NoiseData())  # type: ignore[arg-type]


def test_a_network_without_boxes_heals(
    small: Checkpoint, whole: Checkpoint, context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_healing(small, whole, context)
    with caplog.at_level(logging.WARNING, logger="secateur"):
        result = heal(small, whole, context, STEPS, tmp_path)
    assert "did not reduce the held-out loss" not in caplog.text
    healed = load_checkpoint(result.best)
    images = Noise().batch(range(48)).images.float() / 255
    with torch.no_grad():
        wanted, before, after = (c.build()(images)["answers"][0] for c in (whole, small, healed))
    assert F.mse_loss(after, wanted) < 0.5 * F.mse_loss(before, wanted)
    columns = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert "train/d_out_loss" in columns and "train/d_feat_loss" in columns and "val/loss" in columns
    assert {name: t.shape for name, t in healed.tensors.items()} == {n: t.shape for n, t in small.tensors.items()}


def test_a_step_refuses_what_the_family_does_not_know(
    small: Checkpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="family 'stack' cannot be trained: the family does not implement `loss`"):
        Finetune().check(small, context)
    monkeypatch.setitem(FAMILIES._methods, "stack", Blind())
    with pytest.raises(UserError, match="family 'stack' cannot be healed: the family does not implement `split`"):
        Heal().check(small, context)


def test_what_a_family_declares_is_what_it_trains_with(
    family: Family, whole: Checkpoint, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES._methods, "stack", Trainable())
    file = tmp_path / "hyp.yaml"
    file.write_text("lr0: 0.02\ngain: 2.0\nbox: 0.1\nwarmup_epochs: 0\n")
    step = Finetune(hyp=str(file), train=TrainSettings(epochs=3, batch_size=8, amp="off", tensorboard=False))
    step.check(whole, context)
    result = train_checkpoint(whole, context, step.settings(), tmp_path / "tuned", verb="finetune")
    saved = load_checkpoint(result.last)
    hyp = saved.history[-1].settings["hyp"]
    assert hyp["gain"] == 2.0 and hyp["lr0"] == 0.02 and "box" not in hyp
    first, last = (row["train/cls_loss"] for row in (result.rows[0], result.rows[-1]))
    assert last < first
    for option in ("multi_scale", "rect"):
        settings = dataclasses.replace(step.train, **{option: True})
        with pytest.raises(UserError, match=f"Option {option} needs strides, but Stacked has none"):
            dataclasses.replace(step, train=settings).check(whole, context)
    file.write_text("gian: 2.0\n")
    with pytest.raises(UserError, match=r"unknown hyper-parameter 'gian'\. Did you mean gain"):
        step.check(whole, context)


def test_a_plain_network_in_memory_heals(tmp_path: Path, tiny_data: Path) -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = secateur.trace(whole)
    plan = secateur.allocate(graph, secateur.score(whole, graph, "l2"), percent=0.4, round_to=1)
    small = secateur.cut(whole, graph, plan)
    healed = secateur.heal(small, whole, images=tiny_data.parent, image_size=64, heal_steps=20, heal_batch=8)
    assert healed.build()(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 32, 32)
    assert healed.history[-1].verb == "heal"
