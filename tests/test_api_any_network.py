"""Networks that are no detectors of ours, through the Python API: traced, priced, cut, saved, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import secateur
from law_subjects import enliven
from secateur.errors import UserError
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.graph import ChannelGraph


class Mixed(nn.Module):
    """Chunk, split, grouped, depthwise and transposed convolutions on the way to four maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.left = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.SiLU(), nn.Conv2d(12, 8, 1))
        self.grouped = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(32))
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.parts = nn.Conv2d(32, 24, 1)
        self.up = nn.ConvTranspose2d(8, 10, 2, 2)
        self.up_grouped = nn.ConvTranspose2d(16, 8, 4, 2, 1, groups=2)
        self.last = nn.Conv2d(18, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        one, two = self.stem(images).chunk(2, 1)
        x = torch.cat((self.left(one), two), 1)
        x = self.depthwise(self.grouped(x).relu())
        one, two = self.parts(x).split((8, 16), 1)
        return self.last(torch.cat((self.up(one), self.up_grouped(two)), 1))


def lively(network: nn.Module) -> nn.Module:
    enliven(network)
    return network.eval()


def smaller(network: nn.Module, *inputs: Any, **budget: float) -> tuple[ChannelGraph, nn.Module, nn.Module]:
    """The graph, and the cut and the masked network; the price is checked on the way."""
    graph = secateur.trace(network, *inputs)
    whole = graph.price()
    assert whole.parameters == parameters(network)
    plan = secateur.allocate(graph, secateur.score(network, graph, "l2"), round_to=1, **(budget or {"params": 0.5}))
    small = secateur.cut(network, graph, plan)
    assert plan.before == whole
    assert plan.after.parameters == graph.price(plan.keep(graph)).parameters == parameters(small)
    assert plan.after.flops < whole.flops
    # The cut network is a network like any other: traced again it costs what was promised.
    assert secateur.trace(small, *inputs).price() == plan.after
    return graph, small, secateur.mask(network, graph, plan)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def saved_and_loaded(small: nn.Module, whole: nn.Module, folder: Path) -> nn.Module:
    secateur.save(small, folder / "small.safetensors")
    loaded: nn.Module = secateur.load(folder / "small.safetensors", network=whole)
    return loaded.eval()


@pytest.mark.parametrize(
    ("build", "layers", "budget"),
    [(resnet50, 54, {"flops": 0.5, "params": 0.6}), (Mixed, 9, {"percent": 0.4})],
    ids=["resnet50", "mixed"],
)
def test_a_network_is_cut_saved_and_loaded(build: Any, layers: int, budget: dict[str, float], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = lively(build())
    graph, small, silent = smaller(network, **budget)
    assert len(graph.emitted) == layers
    loaded = saved_and_loaded(small, network, tmp_path)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        dense, cut, masked, again = (each(images) for each in (network, small, silent, loaded))
    torch.testing.assert_close(cut, masked, rtol=1e-5, atol=1e-5)
    assert torch.equal(cut, again)
    assert (cut - dense).abs().max() > 1e-2
    assert {name: tensor.shape for name, tensor in loaded.state_dict().items()} == {
        name: tensor.shape for name, tensor in small.state_dict().items()
    }


def retinanet() -> RetinaNet:
    """ResNet-18 with BatchNorm under a pyramid; BatchNorm in the heads too. Double precision: boxes are sorted by
    scores, and rounding must not decide."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    network = RetinaNet(backbone, 4, min_size=64, max_size=64, detections_per_img=20)
    anchors = network.anchor_generator.num_anchors_per_location()[0]
    network.head = RetinaNetHead(256, anchors, 4, norm_layer=nn.BatchNorm2d)
    return lively(network).double()


def test_the_parts_of_a_retinanet_are_cut_apart_and_put_back(tmp_path: Path) -> None:
    network = retinanet()
    maps = [torch.zeros(1, 256, side, side) for side in (8, 4, 2, 1, 1)]
    whole, silent = retinanet(), retinanet()
    backbone, network.backbone, silent.backbone = smaller(whole.backbone)
    head, network.head, silent.head = smaller(whole.head, maps)
    # What the parts hand to each other, and to whoever asks, stays as wide as it is; the graph says so.
    given = {entry.layer: entry.by for entry in backbone.frozen if entry.channels == entry.total}
    assert {f"fpn.layer_blocks.{level}.0" for level in range(3)} <= given.keys()
    assert given["fpn.layer_blocks.0.0"] == "the network's output"
    assert {entry.layer for entry in head.frozen} == {"classification_head.cls_logits", "regression_head.bbox_reg"}
    loaded = saved_and_loaded(network, whole, tmp_path)
    image = torch.rand(3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        [dense], [cut], [masked], [again] = (each([image]) for each in (whole, network, silent, loaded))
    assert len(cut["boxes"]) > 0
    for name, values in cut.items():
        torch.testing.assert_close(values, masked[name], rtol=0, atol=1e-5)
        assert torch.equal(values, again[name])
    assert cut["scores"].shape != dense["scores"].shape or not torch.allclose(cut["scores"], dense["scores"], atol=1e-3)


def test_a_network_whose_norms_are_frozen_is_cut() -> None:
    network = resnet18(norm_layer=FrozenBatchNorm2d)
    graph = secateur.trace(network)
    assert [entry.layer for entry in graph.frozen] == ["fc"]
    plan = secateur.allocate(graph, secateur.score(network, graph, "l2"), params=0.5)
    small = secateur.cut(network, graph, plan)
    assert parameters(small) == plan.after.parameters and small.bn1.weight.shape == small.conv1.weight.shape[:1]


def test_a_network_in_which_nothing_can_go_says_why() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softmax(1), nn.Conv2d(8, 2, 1))
    graph = secateur.trace(network)
    with pytest.raises(UserError, match=r"no prunable channels.*softmax in Softmax at 1, the network's output"):
        secateur.allocate(graph, secateur.score(network, graph, "l2"), params=0.5)


def test_what_cannot_go_is_named() -> None:
    graph = secateur.trace(Mixed())
    frozen = {entry.layer: (entry.channels, entry.total, entry.by) for entry in graph.frozen}
    split = "split_with_sizes in Mixed, whose sizes are numbers in the network's code"
    assert frozen == {
        "parts": (24, 24, split),
        "up_grouped": (8, 8, split),
        "last": (4, 4, "the network's output"),
    }
    assert "frozen by the network's output: last (4 of 4)" in str(graph)


@pytest.mark.parametrize("options", [{}, {"rounds": 3}, {"norms": "reestimate"}], ids=str)
def test_the_checkpoint_of_a_plain_module_is_pruned(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = lively(ResNet(BasicBlock, [1, 1, 1, 1]))
    checkpoint = Checkpoint.of(network)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(checkpoint.build()(images), network(images))
    small = secateur.prune(checkpoint, criterion="l2", params=0.5, **options)
    assert small.history[-1].verb == "prune" and small.image_size == 64
    built = small.build()
    assert parameters(built) == small.plan["after"]["parameters"] <= 0.51 * parameters(network)
    with torch.no_grad():
        assert built(images).shape == (2, 1000)
    # The module itself may be given too, and the file is put into the module as it was.
    assert secateur.prune(network, criterion="l2", params=0.5, **options).plan == small.plan
    secateur.save(small, tmp_path / "small.safetensors")
    again = secateur.load(tmp_path / "small.safetensors", network=network).eval()
    with torch.no_grad():
        assert torch.equal(again(images), built(images))
    # And once more, from what came out.
    smaller = secateur.prune(small, criterion="l2", params=0.5)
    assert smaller.plan["after"]["parameters"] <= 0.26 * parameters(network)


def test_a_checkpoint_of_a_plain_module_does_not_follow_the_module() -> None:
    network = lively(resnet18())
    checkpoint = Checkpoint.of(network)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        network.fc = nn.Linear(512, 10)
        network.conv1.weight.zero_()
        assert torch.equal(checkpoint.build()(images), before)


class Uncopied(nn.Sequential):
    """A network that cannot be copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        raise RuntimeError("no copies")


def test_a_plain_module_that_cannot_be_copied_still_has_a_checkpoint(tmp_path: Path) -> None:
    network = Uncopied(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    checkpoint = Checkpoint.of(network)
    secateur.save(checkpoint, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="holds the tensors of a Uncopied, but not its code"):
        checkpoint.build()


@pytest.mark.parametrize("images", [False, True])
def test_gradients_of_a_plain_module_are_refused(images: bool) -> None:
    checkpoint = Checkpoint.of(resnet18())
    seen = [np.full((40, 40, 3), value, np.uint8) for value in (0, 90, 200)] if images else None
    with pytest.raises(
        UserError,
        match=r"the family does not implement `loss`\. Either use --criterion l2, l1 or gamma, or implement",
    ):
        secateur.prune(checkpoint, params=0.5, images=seen)


@pytest.mark.parametrize(
    "call",
    [
        lambda checkpoint: secateur.predict(checkpoint, np.zeros((32, 32, 3), np.uint8)),
        lambda checkpoint: secateur.evaluate(checkpoint, "coco128.yaml"),
        lambda checkpoint: secateur.finetune(checkpoint, "coco128.yaml", "tuned"),
        lambda checkpoint: secateur.shorten(checkpoint, 1),
    ],
    ids=["predict", "evaluate", "finetune", "shorten"],
)
def test_a_plain_module_is_no_detector(call: Any) -> None:
    with pytest.raises(UserError, match=r"secateur\.\w+ needs a detector, but this is a Sequential \(plain module\)"):
        call(Checkpoint.of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())))


def test_the_file_of_a_plain_module_gives_its_outputs(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))
    file = secateur.export(network, tmp_path / "plain.torchscript", image_size=40)
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        [found] = torch.jit.load(str(file))(images)
        torch.testing.assert_close(found, network.eval()(images))


@pytest.mark.parametrize("norms", ["paired", "reestimate"])
def test_a_plain_modules_norms_are_corrected_on_images(norms: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False)]
    middle = [nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    network = lively(nn.Sequential(*layers, *middle, nn.Conv2d(16, 2, 1)))
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (50, 70, 3), np.uint8) for _ in range(8)]
    plain, corrected = (
        secateur.prune(
            network, criterion="l2", params=0.5, round_to=1, norms=norms, correction_images=8, batch_size=4, **given
        )
        for given in ({}, {"images": images})
    )
    assert plain.plan == corrected.plan
    moved = [name for name, tensor in plain.tensors.items() if not torch.equal(tensor, corrected.tensors[name])]
    assert {name.partition(".")[2] for name in moved} >= {"running_mean", "running_var"}
