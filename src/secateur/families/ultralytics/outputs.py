"""Outputs of exported files of networks without axis-aligned boxes: the tensors of the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.families.outputs import Form, Outputs, OwnOutputs, own_outputs


class Head(nn.Module):
    """Maps images to the raw outputs of a network, without the sizes of its levels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """[B, C, H, W] -> see `UltralyticsNetwork`."""
        return _without_sizes(self.network(images))


def head_outputs(network: nn.Module, form: Form) -> Outputs:
    """The tensors of the head in order.

    Raises:
        UserError: another kind of outputs is requested.
    """
    whole = own_outputs(network, form).network
    assert isinstance(whole, OwnOutputs)
    return Outputs(OwnOutputs(Head(whole.network), torch.float16 if form.half else torch.float32))


def _without_sizes(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    return {name: _without_sizes(value) for name, value in given.items() if name != "sizes"}
