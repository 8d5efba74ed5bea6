"""The report counts zeros in tensors, by three ratios, and estimates sizes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from secateur.sparsity.patterns import parse_pattern
from secateur.sparsity.report import NO_SPEED, sparsity_report


def network() -> nn.Module:
    """A convolution [8, 4, 1, 1], a linear layer [4, 8] and a norm, 32 + 32 + 4 + 16 parameters, none of them zero."""
    layers = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 4))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.fill_(1)
    return layers


def test_ratios_of_single_weights() -> None:
    layers = network()
    with torch.no_grad():
        layers[0].weight.flatten()[:12] = 0
        layers[1].bias[:3] = 0
    report = sparsity_report(layers)
    assert report.elementwise_over_matmul_gemm_conv == 12 / 64
    assert report.elementwise_over_all == 15 / 84  # zeros of norms and biases count there, as in Ultralytics' figure
    assert report.blockwise_over_matmul_gemm_conv == 12 / 64
    assert report.over_covered == 12 / 64
    assert [(x.name, x.weights, x.zeros, x.covered) for x in report.layers] == [
        ("0.weight", 32, 12, True),
        ("2.weight", 32, 0, True),
    ]
    covered = sparsity_report(layers, {"0.weight"})
    assert covered.over_covered == 12 / 32 and covered.elementwise_over_matmul_gemm_conv == 12 / 64
    assert [layer.name for layer in covered.layers if not layer.covered] == ["2.weight"]


def test_weights_that_have_grown_again_are_not_zeros() -> None:
    layers = network()
    with torch.no_grad():
        layers[0].weight[:4, 0] = 0  # one block of 4x1
        layers[0].weight[4:7, 1] = 0  # three quarters of another
    report = sparsity_report(layers, {"0.weight"}, parse_pattern("4x1"))
    assert report.elementwise_over_matmul_gemm_conv == 7 / 64 and report.blockwise_over_matmul_gemm_conv == 4 / 64


@pytest.mark.parametrize(("text", "blockwise"), [("1:4", 9 / 64), ("3:4", 5 / 64), ("2:4", 6 / 64)])
def test_groups_of_n_of_m_count_when_at_most_n_weights_are_left(text: str, blockwise: float) -> None:
    layers = network()
    with torch.no_grad():
        for row, zeros in enumerate((3, 3, 3, 1, 1)):
            layers[0].weight[row, :zeros] = 0
    report = sparsity_report(layers, pattern=parse_pattern(text))
    assert report.elementwise_over_matmul_gemm_conv == 11 / 64
    assert report.blockwise_over_matmul_gemm_conv == blockwise


def test_sizes() -> None:
    layers = network()
    dense = sparsity_report(layers)
    # 84 parameters and 16 running statistics in fp16, and a counter of 8 bytes.
    assert dense.dense_bytes == dense.compressed_bytes == 2 * 100 + 8
    with torch.no_grad():
        layers[0].weight.flatten()[:12] = 0
        layers[2].weight[0, 0] = 0  # one zero does not pay for a mask of 4 bytes
    sparse = sparsity_report(layers)
    assert sparse.dense_bytes == dense.dense_bytes and sparse.compressed_bytes == sparse.dense_bytes - 2 * 12 + 4


def test_what_is_written() -> None:
    layers = network()
    with torch.no_grad():
        layers[0].weight[0] = 0
    report = sparsity_report(layers, ["0.weight"])
    data = json.loads(json.dumps(report.to_dict()))
    assert data["elementwise_over_all"] == 4 / 84 and data["layers"][0]["zeros"] == 4 and data["parameters"] == 84
    lines = report.table().splitlines()
    assert lines[1].split() == ["0", "8x4x1x1", "32", "12.50", "%"]
    assert lines[2].endswith("0.00 % (dense)")
    assert "elementwise_over_all: 0.0476" in lines and lines[-1] == NO_SPEED


def test_a_network_without_layers_has_no_zeros() -> None:
    report = sparsity_report(nn.Sequential(nn.SiLU()))
    assert report.elementwise_over_all == report.elementwise_over_matmul_gemm_conv == report.over_covered == 0
