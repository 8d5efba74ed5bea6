"""Numbers of layers follow their tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.errors import UserError
from secateur.layers import all_digits, group_width, match_numbers_


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(8, 12, 3), (5, 7, 3, 3), (7, 5, 1)),
        (nn.Conv2d(8, 12, 3, groups=4), (9, 2, 3, 3), (6, 9, 3)),
        (nn.Conv2d(8, 8, 3, groups=8), (5, 1, 3, 3), (5, 5, 5)),
        (nn.Conv2d(8, 12, 3, groups=4), (3, 2, 3, 3), (2, 3, 1)),
        (nn.Conv1d(8, 12, 3), (5, 7, 3), (7, 5, 1)),
        (nn.ConvTranspose2d(8, 12, 2), (5, 7, 2, 2), (5, 7, 1)),
        (nn.ConvTranspose2d(8, 12, 2, groups=4), (6, 3, 2, 2), (6, 9, 3)),
    ],
)
def test_convolutions(layer: nn.Conv2d, shape: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    per_group = group_width(layer)
    layer.weight = nn.Parameter(torch.rand(shape))
    layer.bias = nn.Parameter(torch.rand(expected[1]))
    match_numbers_(layer, per_group)
    assert (layer.in_channels, layer.out_channels, layer.groups) == expected
    spatial = [4] * (len(shape) - 2)
    assert layer(torch.rand(1, expected[0], *spatial)).shape[1] == expected[1]


def test_norms_and_linear_layers() -> None:
    norm, plain, linear = nn.BatchNorm2d(8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 4)
    for key in ("weight", "bias"):
        setattr(norm, key, nn.Parameter(torch.rand(5)))
    for key in ("running_mean", "running_var"):
        setattr(norm, key, torch.rand(5))
        setattr(plain, key, torch.rand(6))
    linear.weight, linear.bias = nn.Parameter(torch.rand(3, 7)), nn.Parameter(torch.rand(3))
    for layer in (norm, plain, linear, nn.ReLU()):
        match_numbers_(layer, group_width(layer))
    assert (norm.num_features, plain.num_features) == (5, 6)
    assert (linear.in_features, linear.out_features) == (7, 3)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((10, 2, 3, 3), "10 channels, not a multiple of its group width 3"),
        ((9, 1, 3, 3), "1 channels per group instead"),
    ],
)
def test_tensors_that_are_no_whole_groups_are_refused(shape: tuple[int, ...], sentence: str) -> None:
    layer = nn.Conv2d(8, 12, 3, groups=4)
    per_group = group_width(layer)
    layer.weight = nn.Parameter(torch.rand(shape))
    with pytest.raises(UserError, match=sentence):
        match_numbers_(layer, per_group, "stem")


def test_a_bias_of_another_length_is_refused() -> None:
    layer = nn.Conv2d(8, 12, 3)
    layer.weight = nn.Parameter(torch.rand(6, 8, 3, 3))
    with pytest.raises(UserError, match=r"The tensor stem\.bias has the shape \[12\], but its layer has length 6"):
        match_numbers_(layer, None, "stem")


def test_a_gpu_keeps_all_digits_for_a_while() -> None:
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    with pytest.raises(ValueError, match="inside"), all_digits():
        assert not any(switch.allow_tf32 for switch in switches)
        raise ValueError("inside")
    assert [switch.allow_tf32 for switch in switches] == before
