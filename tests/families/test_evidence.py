"""Evidence for a family that is no detector: a classifier whose data are folders of class folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys.toy_classifier import CrossEntropy, Folders, OwnClasses, Sorter, SorterFamily, SorterNetwork

from law_subjects import enliven
from secateur.checkpoints.channels import check_channels
from secateur.checkpoints.channels import prune as prune_checkpoint
from secateur.checkpoints.layers import check_layers
from secateur.data.config import unlabelled_images
from secateur.deploy.int8 import calibration_images
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evaluation import usable_size
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import FAMILIES, Family, family_of
from secateur.families.reading import Reading
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.budget import Budget
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.prune import prune
from secateur.pruning.settings import (
    CliffSettings,
    Guards,
    LayerSettings,
    PruneSettings,
    RepairSettings,
    RoundSettings,
    ScoreSettings,
)

NAMES = {0: "blue", 1: "green", 2: "red"}


class Icons(Sorter):
    """The toy classifier with nested outputs, whose images are prepared in a way of its own."""

    kind: ClassVar[str] = "icons"

    def build(self, names: Mapping[int, str]) -> IconNetwork:
        return IconNetwork(self, names)


class IconNetwork(SorterNetwork):
    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # type: ignore[override]
        return super().forward(images), {}


class IconFamily(SorterFamily):
    kind, title, architecture = Icons.kind, "icon classifier", Icons

    def prepare(self, images: Tensor) -> Tensor:
        return (images.float() - 128) / 64

    def loss(self, network: nn.Module, settings: Any) -> Any:
        return lambda raw, targets, images: CrossEntropy()(raw[0], targets, images)

    def own_labels(self, whole: nn.Module, seed: int) -> OwnClasses:
        return OwnClasses(First(whole), seed)


class First(nn.Module):
    """The first output of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


class Lossless(IconFamily):
    loss = Family.loss


class Unbelieving(IconFamily):
    own_labels = Family.own_labels


@pytest.fixture(autouse=True)
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    assert "yolov5" in FAMILIES
    monkeypatch.setitem(FAMILIES._methods, Icons.kind, IconFamily())
    yield FAMILIES[Icons.kind]


@pytest.fixture
def data(tmp_path: Path) -> Folders:
    generator = np.random.default_rng(0)
    for name, count in (("train", 8), ("val", 3)):
        for number, colour in NAMES.items():
            (tmp_path / "icons" / name / colour).mkdir(parents=True)
            for i in range(count):
                image = generator.integers(0, 160, (40, 40, 3), np.uint8)
                image[..., number] += 90
                cv2.imwrite(str(tmp_path / "icons" / name / colour / f"{i}.png"), image)
    return IconFamily().open_data(str(tmp_path / "icons"))


@pytest.fixture
def network() -> IconNetwork:
    torch.manual_seed(0)
    made = Icons(3, width=8).build(NAMES).eval()
    enliven(made)
    return made


def context(data: Folders, labels: bool = True) -> Context:
    if labels:
        return Context(32, data=data, batch_size=6, seed=1)
    seen = unlabelled_images(data.splits["train"], NAMES)
    return Context(32, batch_size=6, seed=1, unlabelled=seen)


def test_batches_come_from_the_family_with_the_targets_that_its_loss_reads(network: IconNetwork, data: Folders) -> None:
    evidence = FamilyEvidence(context(data), network)
    batches, loss = evidence.scored(network, 12, 0)
    read = list(batches)
    assert [len(batch.images) for batch in read] == [6, 6]
    assert all(batch.targets.dtype == torch.int64 and batch.targets.shape == (6,) for batch in read)
    first = read[0]
    logits = network((first.images.float() - 128) / 64)[0]
    alone = [F.cross_entropy(logits[i : i + 1], first.targets[i : i + 1]) for i in range(6)]
    assert loss(network, first).item() == pytest.approx(torch.stack(alone).sum().item(), rel=0.01)
    [again] = list(evidence.scored(network, 6, 0)[0])
    [other] = list(evidence.scored(network, 6, 1)[0])
    assert torch.equal(again.images, first.images) and not torch.equal(other.images, first.images)


def test_images_are_prepared_as_the_family_does(network: IconNetwork, data: Folders) -> None:
    evidence = FamilyEvidence(context(data), network)
    for images in (evidence.images(8, 0), evidence.unaugmented(8), evidence.augmented(8)):
        first = next(iter(images))
        assert first.shape[1:] == (3, 32, 32) and -2 <= float(first.min()) < -1 < 1 < float(first.max()) <= 2
    assert sum(len(images) for images in evidence.images(8, 0)) == 8


def test_without_labels_classes_are_drawn_from_what_the_whole_network_believes(
    network: IconNetwork, data: Folders
) -> None:
    with torch.no_grad():
        network.head.bias += torch.tensor([0.0, 50.0, 0.0])
    evidence = FamilyEvidence(context(data, labels=False), network)
    other = Icons(3, width=8).build(NAMES).eval()
    batches, _ = evidence.scored(other, 24, 0)
    assert torch.cat([batch.targets for batch in batches]).tolist() == [1] * 24


@pytest.mark.parametrize("labels", [True, False])
def test_it_is_pruned_in_rounds(network: IconNetwork, data: Folders, labels: bool) -> None:
    settings = PruneSettings(
        (Budget("flops", 0.6, share=True),),
        ScoreSettings(criterion="fisher", statistics_images=12),
        RoundSettings(rounds="2"),
        Guards(round_to=1),
        RepairSettings(correction_images=12),
        32,
    )
    evidence = FamilyEvidence.of(context(data, labels), network)
    pruned = prune(network, evidence, settings)
    assert 0.5 <= pruned.plan.after.flops / pruned.plan.before.flops <= 0.6
    assert sum(p.numel() for p in pruned.network.parameters()) == pruned.plan.after.parameters
    assert pruned.network(torch.zeros(2, 3, 32, 32))[0].shape == (2, 3)


def test_a_checkpoint_of_it_is_planned_and_cut(network: IconNetwork, data: Folders) -> None:
    checkpoint = Checkpoint(Icons(3, width=8), dict(network.state_dict()), NAMES, ())
    assert usable_size(checkpoint, 32) == 32
    wanted = ChannelSettings(
        budget_options()(flops="0.6"),
        ScoreSettings(criterion="fisher", statistics_images=12),
        RoundSettings(rounds="1"),
        Guards(round_to=1),
        RepairSettings(correction_images=12),
        CliffSettings(cliff=False),
    )
    small, pruned = prune_checkpoint(checkpoint, context(data), wanted)
    assert 0.5 <= pruned.plan.after.flops / pruned.plan.before.flops <= 0.6
    assert sum(p.numel() for p in small.build().parameters()) == pruned.plan.after.parameters


def test_what_a_family_lacks_is_said_before_any_work(
    network: IconNetwork, data: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(Icons(3, width=8), dict(network.state_dict()), NAMES, ())
    wanted = ChannelSettings(budget_options()(flops="0.6"), guards=Guards(round_to=1))
    check_channels(checkpoint, context(data), wanted)
    check_channels(checkpoint, context(data, labels=False), wanted)
    monkeypatch.setitem(FAMILIES._methods, Icons.kind, Lossless())
    sentence = r"family 'icons' cannot be scored by gradients: the family does not implement `loss`\. Either use "
    with pytest.raises(UserError, match=sentence + "--criterion l2, l1 or gamma, or implement it"):
        check_channels(checkpoint, context(data), wanted)
    with pytest.raises(UserError, match=sentence + "--layer-score contribution or gamma"):
        check_layers(checkpoint, context(data), LayerSettings(layers=1, layer_score="taylor"))
    with pytest.raises(UserError, match=sentence):
        FamilyEvidence(context(data), network).scored(network, 4, 0)
    monkeypatch.setitem(FAMILIES._methods, Icons.kind, Unbelieving())
    check_channels(checkpoint, context(data), wanted)
    with pytest.raises(
        UserError,
        match=r"without labels: the family does not implement `own_labels`\. Either set --data, use",
    ):
        check_channels(checkpoint, context(data, labels=False), wanted)


def test_classes_are_compared_by_name(network: IconNetwork, data: Folders) -> None:
    other = dataclasses.replace(data, names={0: "blue", 1: "green", 2: "pink"})
    with pytest.raises(
        UserError, match=r"other classes than .*icons \(class 2 is 'red' in the weights and 'pink' in the data set\)"
    ):
        FamilyEvidence(context(other), network).scored(network, 4, 0)
    assert family_of(network).kind == "icons"


def test_int8_is_calibrated_on_images_spread_evenly(data: Folders) -> None:
    split = IconFamily().split(data, "train")
    images = calibration_images(split, (32, 32), 5)
    assert len(images) == 5 and all(image.shape == (3, 32, 32) and image.dtype == torch.uint8 for image in images)
    assert torch.equal(torch.stack(images), split.batch([0, 6, 12, 17, 23], Reading(32, 5)).images)
