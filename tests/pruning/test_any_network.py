"""Networks that are no detectors of ours: traced, priced, cut, repaired, and what is frozen is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection

from networks import Chain, ConvNorm, enliven, keep_every_other
from secateur.errors import UserError
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.depth.means import match_means_
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.importance import score
from secateur.pruning.repair import absorb_offsets, reestimate_batchnorm_
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut, mask


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors of a nest of outputs."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in tensors_of(part)]


def check_cut_is_mask(network: nn.Module, graph: ChannelGraph, *inputs: Any) -> nn.Module:
    """Cuts every other unit; the outputs are those of the masked network, the price is what is left."""
    plan = keep_every_other(graph)
    small, silent = cut(network, graph, plan), mask(network, graph, plan)
    assert type(small) is type(network)
    with torch.no_grad():
        first, second = tensors_of(small(*inputs)), tensors_of(silent(*inputs))
        dense = tensors_of(network(*inputs))
    assert len(first) == len(second) > 0
    for a, b, whole in zip(first, second, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(1.0, b.abs().max().item()))
        assert (b - whole).abs().max() > 1e-4, "the network is not lively"
    assert plan.after.parameters == sum(parameter.numel() for parameter in small.parameters())
    return small


def counted(network: nn.Module, *inputs: Any) -> int:
    """FLOPs of convolutions and linear layers of one call."""
    total = 0

    def add(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += 2 * output.numel() * module.get_parameter("weight")[0].numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        network(*inputs)
    for handle in handles:
        handle.remove()
    return total


def images(size: int = 64, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_resnet() -> None:
    network = enliven(torchvision.models.resnet50(num_classes=10))
    graph = trace(network, torch.zeros(1, 3, 64, 64))
    assert graph.image_size == (64, 64)
    assert [(entry.layer, entry.by) for entry in graph.frozen] == [("fc", "the network's output")]
    small = check_cut_is_mask(network, graph, images())
    for size in (64, 96, 224):
        assert graph.price(None, size).flops == counted(network, images(size))
        assert graph.price(keep_every_other(graph).keep(graph), size).flops == counted(small, images(size))
    assert trace(network).price() == graph.price(), "one image of 64 px is what is traced without an example"
    scores = score("gamma", graph, collect(network, graph))
    plan = allocate(graph, scores, [Budget("flops", 0.5), Budget("params", 0.7)])
    assert plan.after.flops <= 0.5 * plan.before.flops and plan.after.parameters <= 0.7 * plan.before.parameters
    repaired = cut(absorb_offsets(network, graph, plan), graph, plan)
    assert reestimate_batchnorm_(repaired, [images(64, 4)]) == 1


@pytest.fixture(scope="module")
def retinanet() -> nn.Module:
    weightless: dict[str, Any] = {"weights": None, "weights_backbone": None}
    return enliven(detection.retinanet_resnet50_fpn(**weightless, norm_layer=nn.BatchNorm2d, num_classes=4))


def test_backbone_of_a_retinanet(retinanet: nn.Module) -> None:
    backbone = retinanet.get_submodule("backbone")
    graph = trace(backbone, torch.zeros(1, 3, 64, 64))
    assert {entry.by for entry in graph.frozen} == {"the network's output"}
    assert all(entry.layer.startswith("fpn.") and entry.channels == entry.total == 256 for entry in graph.frozen)
    small = check_cut_is_mask(backbone, graph, images())
    assert graph.price(keep_every_other(graph).keep(graph), 128).flops == counted(small, images(128))


def test_head_of_a_retinanet_with_a_list_of_maps(retinanet: nn.Module) -> None:
    head = retinanet.get_submodule("head")
    with torch.no_grad():  # on average nothing arrives at the outputs otherwise
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    maps = [torch.rand(1, 256, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 4, 2)]
    graph = trace(head, maps)
    assert graph.image_size is None and graph.units == 8 * 256
    assert [(entry.layer, entry.by, entry.place) for entry in graph.frozen] == [
        ("classification_head.cls_logits", "the network's output", ""),
        ("regression_head.bbox_reg", "the network's output", ""),
    ]
    small = check_cut_is_mask(head, graph, maps)
    plan = keep_every_other(graph)
    assert (plan.before.flops, plan.after.flops) == (counted(head, maps), counted(small, maps))
    assert plan.image_size is None and "FLOPs: " in str(plan)
    with pytest.raises(UserError, match="only available for the inputs that it was traced with"):
        graph.price(None, 128)
    assert allocate(graph, np.ones(graph.units), Budget("flops", 0.5)).after.flops < 0.5 * plan.before.flops


def test_network_without_a_unit_says_why() -> None:
    network = Chain(lambda x: x.cumsum(1))
    graph = trace(network)
    words = r"no prunable channels: all 12 channels of its 2 layers are frozen by cumsum in Chain, the network's output"
    assert graph.units == 0 and len(str(graph).splitlines()) == 1
    with pytest.raises(UserError, match=words):
        allocate(graph, np.empty(0), Budget("flops", 0.5))


def squeezed(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    first, second = a(x).chunk(2, 1)
    return torch.cat([first * second.sigmoid(), b(x)], 1)


BY_NUMBER = "split in Chain, whose sizes are numbers in the network's code"
MIXED: dict[str, tuple[Callable[[], Chain], list[tuple[str, int, int, str]]]] = {
    "chunk, grouped and transposed": (
        lambda: Chain(
            lambda x, a, b, g, t: t(g(squeezed(x, a, b))),
            out=6,
            a=ConvNorm(8, 16),
            b=ConvNorm(8, 8, 3),
            g=ConvNorm(16, 32, 3, groups=8),
            t=nn.ConvTranspose2d(32, 6, 2, 2),
        ),
        [("last", 4, 4, "the network's output")],
    ),
    "split by number": (
        lambda: Chain(lambda x, a: torch.mul(*a(x).split(4, 1)), out=4, a=ConvNorm(8, 8)),
        [
            ("layers.a.conv", 8, 8, BY_NUMBER),
            ("last", 4, 4, "the network's output"),
        ],
    ),
    "part of a layer": (
        lambda: Chain(lambda x, a, b: torch.cat([x, b(x).softmax(1)], 1) + a(x), out=12, a=ConvNorm(8, 12),
                      b=nn.Conv2d(8, 4, 1)),
        [
            ("layers.b", 4, 4, "softmax in Chain"),
            ("layers.a.conv", 4, 12, "softmax in Chain"),
            ("last", 4, 4, "the network's output"),
        ],
    ),
    "added to the image": (
        lambda: Chain(lambda x, a, b: b(F.relu(a(x)) + a(x)), a=nn.Conv2d(8, 8, 1), b=nn.Conv2d(8, 8, 1)),
        [("last", 4, 4, "the network's output")],
    ),
    "weights computed": (
        lambda: Chain(lambda x, a: F.conv2d(x, a.weight * 2), a=nn.Conv2d(8, 8, 1)),
        [
            ("stem.conv", 8, 8, "conv2d in Chain, whose weights are computed"),
            ("layers.a", 8, 8, "conv2d in Chain, whose weights are computed"),
            ("last", 4, 4, "the network's output"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MIXED)
def test_what_is_frozen_is_named(case: str) -> None:
    build, frozen = MIXED[case]
    network = enliven(build())
    graph = trace(network)
    assert {(e.layer, e.channels, e.total, e.by) for e in graph.frozen} == set(frozen)
    assert all(name in str(graph.frozen) for name, *_ in frozen)
    if graph.units:
        check_cut_is_mask(network, graph, images())


def test_graph_in_a_few_lines() -> None:
    graph = trace(enliven(MIXED["part of a layer"][0]()))
    assert str(graph).splitlines() == [
        "8 units in 1 spaces: 16 of 28 channels of 4 layers are prunable",
        f"{graph.price().parameters:,} parameters, {graph.price().flops:,} FLOPs at 64x64 px",
        "frozen by softmax in Chain: layers.b (4 of 4), layers.a.conv (4 of 12)",
        "frozen by the network's output: last (4 of 4)",
    ]
    assert repr(graph) == str(graph)


class Fixed(nn.Module):
    """A network for images of one size: its classifier reads every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = ConvNorm(3, 8, 3), nn.Conv2d(8, 2, 1)
        self.classifier = nn.Linear(2 * 32 * 32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.last(self.stem(x)).flatten(1))


def test_network_for_one_image_size() -> None:
    network = enliven(Fixed())
    graph = trace(network, torch.zeros(1, 3, 32, 32))
    assert graph.units == 8 + 2
    small = check_cut_is_mask(network, graph, images(32))
    plan = keep_every_other(graph)
    assert plan.after.flops == graph.price(plan.keep(graph), 32).flops == counted(small, images(32))
    with pytest.raises(UserError, match="only available for the inputs that it was traced with"):
        graph.price(None, 64)
    absorb_offsets(network, graph, plan)


class Pair(nn.Module):
    """Two images in, a mapping out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.joined = ConvNorm(3, 8, 3), ConvNorm(1, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, colour: Tensor, depth: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"map": self.joined(self.first(colour) + self.second(depth["metres"]))}


def test_network_with_several_inputs() -> None:
    network = enliven(Pair())
    inputs = (images(16), {"metres": torch.rand(1, 1, 16, 16)})
    graph = trace(network, *inputs)
    assert graph.units == 8 and graph.inputs[1]["metres"].device.type == "meta"
    plan = keep_every_other(graph)
    check_cut_is_mask(network, graph, *inputs)
    assert torch.isfinite(cut(absorb_offsets(network, graph, plan), graph, plan)(*inputs)["map"]).all()


class Wide(nn.Module):
    """A network that says what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.strides = (64.0,)
        self.body = nn.Sequential(ConvNorm(5, 8, 3, 64), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 5, image_size or 128, image_size or 128),)


def test_network_that_says_what_it_reads() -> None:
    graph = trace(enliven(Wide()))
    assert graph.image_size == (128, 128) and graph.units == 8
    assert graph.price(None, 256).flops == 4 * graph.price().flops
    with pytest.raises(UserError, match="multiple of 64"):
        graph.price(None, 96)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_everything_runs_on_the_networks_device() -> None:
    network = enliven(MIXED["chunk, grouped and transposed"][0]())
    on_gpu = copy.deepcopy(network).cuda()
    graphs = trace(network), trace(on_gpu)
    assert graphs[0].price() == graphs[1].price()
    batches = [images(), images(32)]

    def loss(candidate: nn.Module, batch: Tensor) -> Tensor:
        return candidate(batch).square().mean()

    results = []
    for candidate, graph in zip((network, on_gpu), graphs, strict=True):
        device = next(candidate.parameters()).device
        there = [batch.to(device) for batch in batches]
        scores = score("taylor", graph, collect(candidate, graph, there, loss))
        plan = allocate(graph, scores, Budget("params", 0.6))
        repaired = cut(absorb_offsets(candidate, graph, plan), graph, plan)
        reestimate_batchnorm_(repaired, there)
        same = {name: name for name, _ in candidate.named_modules()}
        match_means_(copy.deepcopy(candidate), candidate, same, there[0])
        results.append((scores, repaired(there[0]).detach().cpu()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-2)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-3)
