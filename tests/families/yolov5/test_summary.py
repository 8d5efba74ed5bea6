"""The model summary: the same figures from a detector and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from secateur.evaluation.cost import layer_flops
from secateur.families.summary import gflops, summary
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.rows import block_widths
from secateur.networks.checkpoint import Checkpoint


def test_figures_and_rows(lively: Callable[..., Detector]) -> None:
    detector = lively("yolov5n", nc=80)
    detector.model[0].requires_grad_(False)
    detector.model[2].cv1.conv.weight.data.zero_()
    result = summary(detector, 640, layer_flops(detector, 640))
    assert (result.parameters, result.flops) == (1_872_157, 4_468_121_600)
    assert result.gradients == 1_872_157 - 1_760
    assert result.sparsity == pytest.approx(512 / 1_872_157, rel=1e-6)
    assert sum(row.parameters for row in result.rows) == result.parameters
    assert sum(row.flops or 0 for row in result.rows) == result.flops
    assert [row.channels for row in result.rows[:3]] == [16, 32, 32]
    assert "4.5 GFLOPs at 640 px" in result.line()
    assert len(result.table().splitlines()) == 26
    assert result.to_dict()["gflops"] == 4.4681

    checkpoint = Checkpoint.of(detector)
    assert summary(checkpoint).sparsity == result.sparsity


def test_widths_of_odd_models(lively: Callable[..., Detector], odd_yaml: Path) -> None:
    detector = lively(odd_yaml)
    widths = block_widths(detector)
    assert widths[9] == widths[8] + widths[4]
    assert widths[-1] == detector.na * detector.no
    assert summary(detector).table().count("\n") == len(widths)


@pytest.mark.parametrize(("flops", "text"), [(4_468_121_600, "4.5"), (131_000_000, "0.13"), (5_200_000, "0.0052")])
def test_small_networks_are_told_apart(flops: int, text: str) -> None:
    assert gflops(flops) == text


def test_any_network_has_figures() -> None:
    result = summary(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()))
    assert result.line() == "2 layers, 16 parameters, 16 gradients"
    assert result.rows == ()
