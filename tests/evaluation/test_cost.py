"""Counting parameters and FLOPs, checked against counts by hand and by torch."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from secateur.errors import UserError
from secateur.evaluation.cost import count, layer_flops, layer_work
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology, parse_topology


def small() -> Detector:
    """Three convolutions whose costs are easy to work out."""
    return Detector(
        parse_topology(
            {
                "nc": 1,
                "anchors": [[8, 8]],
                "channel_multiple": 1,
                "backbone": [[-1, 1, "Conv", [4, 3, 2]], [-1, 1, "DWConvTranspose2d", [4, 2, 2]]],
                "head": [[[-1], 1, "Detect", []]],
            },
            "small",
        )
    )


def test_by_hand() -> None:
    flops = layer_flops(small(), (32, 64))
    assert flops == {
        "model.0.conv": 2 * (16 * 32) * 4 * 3 * 9,
        "model.1": 2 * (16 * 32) * 4 * 4,
        "model.2.m.0": 2 * (32 * 64) * 6 * 4,
    }
    parameters = (4 * 3 * 9 + 8) + (4 * 4 + 4) + (6 * 4 + 6)
    assert count(small(), (32, 64)).parameters == parameters
    assert count(small(), 64).gflops == pytest.approx(sum(layer_flops(small(), 64).values()) / 1e9)


def test_what_a_layer_does_and_moves() -> None:
    work = layer_work(small(), (32, 64))
    first = work["model.0.conv"]
    assert (first.kind, first.reads, first.emits, first.map) == ("conv 3x3/2", 3, 4, (16, 32))
    assert (first.activations, first.weights) == (3 * 32 * 64 + 4 * 16 * 32, 4 * 3 * 9)
    assert first.intensity() == pytest.approx(first.flops / 4 / (first.activations + first.weights))
    # Many images are moved with one load of the weights.
    assert first.intensity(8) == pytest.approx(8 * first.flops / 4 / (8 * first.activations + first.weights))
    assert [item.kind for item in work.values()][1:] == ["transposed 2x2/2", "conv 1x1"]
    twice = first.again(first)
    assert (twice.flops, twice.activations, twice.weights) == (2 * first.flops, 2 * first.activations, first.weights)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s-ghost", "yolov3-tiny"])
def test_against_torch(name: str) -> None:
    detector = Detector(Topology.from_yaml(name, nc=2)).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        detector(torch.zeros(1, 3, 64, 96))
    assert count(detector, (64, 96)).flops == counter.get_total_flops()


def test_counting_changes_nothing() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=2)).train()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    count(detector)
    assert all(m.training for m in detector.modules())
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    assert not any(m._forward_hooks for m in detector.modules())


@pytest.mark.parametrize("size", [0, 50, (64, 33)])
def test_sizes_that_do_not_fit_are_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(UserError, match="multiple"):
        count(Detector(Topology.from_yaml("yolov5n", nc=2)), size)


class Plain(torch.nn.Module):
    """A network of another make: grouped and transposed convolutions, attention, tensors that are not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.strides = (2.0,)
        self.stem = torch.nn.Conv2d(4, 8, 3, 2, 1, groups=2)
        self.up = torch.nn.ConvTranspose2d(8, 6, 2, 2, bias=False)
        self.attention = torch.nn.MultiheadAttention(6, 2)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def example_inputs(self, image_size: int | None = None) -> tuple[torch.Tensor]:
        return (torch.zeros(1, 4, image_size or 8, image_size or 8),)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = (self.up(self.stem(images)) * self.scale).flatten(2).permute(2, 0, 1)
        return self.attention(pixels, pixels, pixels)[0]


def test_any_network_is_counted() -> None:
    network = Plain().train()
    flops = layer_flops(network, (8, 16))
    assert flops == {"stem": 2 * (4 * 8) * 8 * 2 * 9, "up": 2 * (4 * 8) * 8 * 6 * 4}
    assert count(network, 8).parameters == sum(p.numel() for p in network.parameters())
    assert network.training and network.stem.weight.device.type == "cpu"
