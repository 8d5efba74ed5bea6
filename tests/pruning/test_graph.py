"""The graph: channels tied by residual sums, pricing, what is left alone, and sizes that cannot be priced."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import Chain, ConvNorm, enliven, keep_every_other
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import ChannelGraph, trace, tracing
from secateur.pruning.surgery import cut


def tied_channels(graph: ChannelGraph) -> int:
    """Channels of convolutions that share their unit with a channel of another one."""
    emitted = [units[units >= 0] for units in graph.emitted.values()]
    members = np.bincount(np.concatenate(emitted), minlength=graph.units)
    return sum(int((members[units] > 1).sum()) for units in emitted)


@pytest.mark.parametrize(
    ("name", "tied", "norm_channels", "parameters", "flops"),
    [
        ("yolov5n", 640, 4752, 1_872_157, 4_468_121_600),
        ("yolov5s", 1280, 9504, 7_235_389, 16_433_561_600),
        ("yolov5m", 3120, 18384, 21_190_557, 48_872_448_000),
        ("yolov5l", 5760, 30016, 46_563_709, 108_993_740_800),
        ("yolov5x", 9200, 44400, 86_749_405, 205_448_192_000),
    ],
)
def test_family(name: str, tied: int, norm_channels: int, parameters: int, flops: int) -> None:
    graph = trace(Detector(Topology.from_yaml(name)))
    assert tied_channels(graph) == tied
    assert sum(len(units) for units in graph.norms.values()) == norm_channels
    # Every channel with a batch norm can be pruned; only the head's outputs are frozen.
    assert all((units >= 0).all() for units in graph.norms.values())
    price = graph.price(image_size=640)
    assert (price.parameters, price.flops) == (parameters, flops)


def test_transformer_is_priced_as_published() -> None:
    graph = trace(Detector(Topology.from_yaml("yolov5s-transformer")))
    price = graph.price(None, 640)
    assert (price.parameters, price.flops) == (7_235_645, 16_223_846_400)
    assert graph.price(image_size=(320, 640)).flops == 16_223_846_400 // 2


def test_trace_leaves_the_network_as_it_was() -> None:
    network = Chain(lambda x: x).train()
    network.stem.bn.eval()
    before = copy.deepcopy(network.state_dict())
    trace(network)
    assert network.training and network.last.training and not network.stem.bn.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks that are really followed; nothing is known before."""
    networks: list[nn.Module] = []
    original = torch.export.export

    def export(network: nn.Module, *inputs: Any, **options: Any) -> Any:
        networks.append(network)
        return original(network, *inputs, **options)

    monkeypatch.setattr(torch.export, "export", export)
    monkeypatch.setattr(tracing, "_KNOWN", OrderedDict())
    return networks


def test_a_structure_is_followed_once(followed: list[nn.Module]) -> None:
    topology = Topology.from_yaml("yolov5n", nc=2)
    first, second = Detector(topology), Detector(topology).train()
    graph = trace(first)
    assert trace(second) is trace(first) is graph and second.training and len(followed) == 1
    smaller = cut(first, graph, keep_every_other(graph))
    assert trace(smaller).units < graph.units and trace(copy.deepcopy(smaller)).units == trace(smaller).units
    assert trace(first) is graph and len(followed) == 2
    trace(first, torch.zeros(1, 3, 96, 96))
    for _ in range(2):
        trace(Chain(lambda x: x))  # tells no structure
    assert len(followed) == 5


def test_the_last_few_structures_are_known(followed: list[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_MOST_KNOWN", 2)
    detectors = [Detector(Topology.from_yaml("yolov3-tiny", nc=n)) for n in (1, 2, 3)]
    for number in (0, 1, 0, 2, 0, 1):
        trace(detectors[number])
    assert [detectors.index(network) for network in followed] == [0, 1, 2, 1]


def test_a_hook_may_change_what_a_module_answers(followed: list[nn.Module]) -> None:
    detector = Detector(Topology.from_yaml("yolov3-tiny", nc=2))
    free = trace(detector).units
    for place, register, hook in (
        ("model.0", nn.Module.register_forward_hook, lambda module, inputs, output: output.softmax(1)),
        ("model.2", nn.Module.register_forward_pre_hook, lambda module, inputs: (inputs[0].softmax(1),)),
    ):
        handle = register(detector.get_submodule(place), hook)
        assert trace(detector).units < free
        handle.remove()
        assert trace(detector).units == free
    assert len(followed) == 3


def test_fused_network_can_be_traced() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=2))
    plain, fused = trace(detector), trace(detector.fused())
    assert [len(space.units) for space in plain.spaces] == [len(space.units) for space in fused.spaces]
    assert not fused.norms


def test_price_without_even_strides() -> None:
    """Convolutions without padding and pooled maps do not scale with the image, and are still priced exactly."""

    def middle(x: Tensor, a: nn.Module, down: nn.Module, up: nn.Module) -> Tensor:
        x = a(x)
        return x * torch.sigmoid(up(F.silu(down(F.adaptive_avg_pool2d(x, 1)))))

    network = enliven(Chain(middle, a=nn.Conv2d(8, 8, 3, 2), down=nn.Conv2d(8, 2, 1), up=nn.Conv2d(2, 8, 1)))
    graph = trace(network)
    small = cut(network, graph, keep_every_other(graph))
    for height, width in ((64, 64), (96, 160), (256, 128)):
        flops = 0

        def add(module: nn.Conv2d, inputs: object, output: Tensor) -> None:
            nonlocal flops
            flops += 2 * output.numel() * module.weight[0].numel()

        handles = [m.register_forward_hook(add) for m in small.modules() if isinstance(m, nn.Conv2d)]
        small(torch.zeros(1, 3, height, width))
        for handle in handles:
            handle.remove()
        assert graph.price(keep_every_other(graph).keep(graph), (height, width)).flops == flops


class BothAxes(nn.Module):
    """Attention along both axes: a convolution over the places of a column and of a row, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 16, 16), nn.Conv2d(8, 4, 1)
        self.high, self.broad, self.last = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        high, broad = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        both = F.silu(self.down(torch.cat([high, broad], 2)))
        high, broad = both.split([x.shape[2], x.shape[3]], 2)
        x = x * self.high(high).sigmoid() * self.broad(broad.transpose(2, 3)).sigmoid()
        rows: Tensor = self.last(torch.cat([x.flatten(2), x.mean((2, 3))[..., None]], 2).transpose(1, 2))
        return rows


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (384, 640), (640, 96)])
def test_price_where_height_and_width_are_not_one_behind_the_other(size: tuple[int, int]) -> None:
    network = BothAxes()
    height, width = size[0] // 16, size[1] // 16
    maps = 2 * height * width * 8 * 3 * 16 * 16
    along = 2 * (height + width) * 8 * 4 + 2 * height * 4 * 8 + 2 * width * 4 * 8
    rows = 2 * (height * width + 1) * 8 * 2
    assert trace(network).price(None, size).flops == maps + along + rows


def test_price_of_a_network_that_takes_squares_alone() -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rows = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2] == x.shape[3]
            rows: Tensor = self.rows(self.conv(x).flatten(2).transpose(1, 2))
            return rows

    graph = trace(Square())
    assert graph.price(None, 640).flops == 2 * 80 * 80 * (8 * 3 * 64 + 8 * 2)
    with pytest.raises(UserError, match=r"accepts only square images, so it has no cost at 64 x 96 px. Set one number"):
        graph.price(None, (64, 96))


def test_size_that_is_no_multiple_of_the_stride() -> None:
    graph = trace(Detector(Topology.from_yaml("yolov5n", nc=1)))
    with pytest.raises(UserError, match="multiple of 32"):
        graph.price(image_size=100)


def test_network_that_cannot_be_traced() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match="cannot be traced"):
        trace(Branching())


def test_spaces_know_their_layers_width_and_frozen_channels() -> None:
    network = Chain(
        lambda x, a, g: g(torch.cat([a(x), x], 1)), out=24, a=nn.Conv2d(8, 4, 1), g=ConvNorm(12, 24, groups=6)
    )
    graph = trace(network)
    assert graph.units == 6
    # Two inputs of a group leave together: a's 4 channels make 2 units, the stem's 8 make 4.
    assert {(space.layers, space.widths, len(space.units)) for space in graph.spaces} == {
        (("stem.conv", "layers.g.conv"), (2, 4), 4),
        (("layers.a", "layers.g.conv"), (2, 4), 2),
    }


def test_savings_agree_with_the_price() -> None:
    graph = trace(Chain(lambda x, a: x + a(x), a=ConvNorm(8, 8, 3)))
    parameters, flops = (COSTS[name].of(graph, 64).savings() for name in ("params", "flops"))
    dense = graph.price(None, 64)
    keep = np.ones(graph.units, dtype=bool)
    keep[3] = False
    less = graph.price(keep, 64)
    # First order: where rows and columns both carry the unit, their crossing is counted twice (9 weights here).
    assert parameters[3] == dense.parameters - less.parameters + 9
    assert flops[3] == dense.flops - less.flops + 2 * 9 * 64 * 64
