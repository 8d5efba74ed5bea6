"""Layers: numbers that must match their tensors (channels, groups, features), and context managers for modes and
hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from secateur.errors import UserError


def group_width(layer: nn.Module) -> tuple[int, int] | None:
    """(input channels, output channels) per group of a grouped convolution or group norm; None for other layers."""
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        return layer.in_channels // layer.groups, layer.out_channels // layer.groups
    if isinstance(layer, nn.GroupNorm):
        return (layer.num_channels // layer.num_groups,) * 2
    return None


def match_numbers_(layer: nn.Module, per_group: tuple[int, int] | None, name: str = "") -> None:
    """Sets the widths and groups of convolutions, linear layers and norms to match their tensors.

    Args:
        layer: any module with its tensors already in their new shapes. Modules without such numbers are not changed.
        per_group: (input channels, output channels) per group of the dense layer (`group_width`); None if it is not
            grouped. Pruning removes complete groups, so the width of a group does not change.
        name: name of the layer for errors; the default is its class.

    Raises:
        UserError: the tensors do not hold a whole number of groups, or do not match each other.
    """
    name = name or type(layer).__name__
    if isinstance(layer, _ConvNd):
        _match_convolution(layer, per_group, name)
        _check_length(layer, "bias", layer.out_channels, name)
    elif isinstance(layer, _NormBase):
        known = [t for t in (layer.weight, layer.running_mean) if t is not None]
        if known:
            layer.num_features = known[0].shape[0]
            for key in ("bias", "running_mean", "running_var"):
                _check_length(layer, key, layer.num_features, name)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
        _check_length(layer, "bias", layer.out_features, name)
    elif isinstance(layer, nn.GroupNorm) and per_group is not None and layer.affine:
        layer.num_channels = layer.weight.shape[0]
        own = per_group[0]
        if layer.num_channels % own:
            raise UserError(
                f"The tensor {name}.weight has {layer.num_channels} channels, not a multiple of its group width {own}."
            )
        layer.num_groups = layer.num_channels // own
        _check_length(layer, "bias", layer.num_channels, name)
    elif isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1 and layer.elementwise_affine:
        layer.normalized_shape = tuple(layer.weight.shape)
        _check_length(layer, "bias", layer.weight.shape[0], name)


def _match_convolution(layer: _ConvNd, per_group: tuple[int, int] | None, name: str) -> None:
    first, second = layer.weight.shape[:2]
    layer.groups = 1
    if per_group is not None:
        # The weight of a transposed convolution is [inputs, outputs per group, ...].
        own, other = per_group if layer.transposed else per_group[::-1]
        if first % own:
            raise UserError(f"The tensor {name}.weight has {first} channels, not a multiple of its group width {own}.")
        if second != other:
            raise UserError(f"The tensor {name}.weight has {second} channels per group instead of {other}.")
        layer.groups = first // own
    channels = (first, second * layer.groups)
    layer.in_channels, layer.out_channels = channels if layer.transposed else channels[::-1]


def _check_length(layer: nn.Module, key: str, length: int, name: str) -> None:
    tensor = getattr(layer, key, None)
    if tensor is not None and tensor.shape != (length,):
        raise UserError(
            f"The tensor {name}.{key} has the shape {list(tensor.shape)}, but its layer has length {length}."
        )


@contextmanager
def all_digits() -> Iterator[None]:
    """Disables TF32, in which a GPU rounds float32 inputs of convolutions and matrix products to ten bits."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Sets the networks to evaluation mode. On exit, restores the mode of every module."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """Disables gradients for the parameters of a network. On exit, restores those that had them enabled."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Removes the given hooks on exit."""
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def shape_pass(network: nn.Module, image: Tensor) -> Any:
    """The network's output in evaluation mode on the meta device: shapes without computation. Hooks are called.

    Args:
        network: any module.
        image: [1, C, H, W]; only its shape and dtype are used.
    """
    tensors = [*network.named_parameters(), *network.named_buffers()]
    meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with torch.no_grad(), evaluating(network), NormsPass():
        return functional_call(network, meta, (torch.empty_like(image, device="meta"),))


def is_attention(module: nn.Module) -> bool:
    """Whether the query, key and value projections share one tensor, as in `nn.MultiheadAttention`."""
    return any(name == "in_proj_weight" for name, _ in module.named_parameters(recurse=False))


class NormsPass(TorchFunctionMode):
    """Makes batch norms return their input, for passes that need only shapes, where norms would dominate the time.

    On the meta device, one batch norm takes milliseconds because it is decomposed into a dozen operators.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls the function; for a batch norm, returns its input."""
        if func in (F.batch_norm, torch.batch_norm):
            return args[0]
        return func(*args, **(kwargs or {}))
