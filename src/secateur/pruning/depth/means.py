"""Compensates for the mean contribution of removed blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from secateur.layers import evaluating, hooked


def match_means_(smaller: nn.Module, whole: nn.Module, names: Mapping[str, str], images: Tensor) -> None:
    """Compensates for the mean contribution of removed blocks: the input of every norm of `smaller` is centred as in
    `whole`.

    The mean input of each norm over the images is measured in both networks in eval mode, and its running mean is
    shifted by the difference. For a convolution with a bias, the bias is shifted. There is one pass in execution order,
    so each layer is measured after the layers before it are corrected. This is the bias correction of
    https://arxiv.org/abs/1906.04721, applied to removed blocks instead of rounded weights.

    Args:
        names: module names of `smaller` -> names of the same modules in `whole`.
        images: float [B, C, H, W] in 0..1.
    """
    means: dict[str, Tensor] = {}

    def measure(name: str) -> Callable[[nn.Module, Tensor], None]:
        def note(module: nn.Module, maps: Tensor) -> None:
            means[name] = _channel_means(maps)

        return note

    def correct(name: str) -> Callable[[nn.Module, Tensor], Tensor | None]:
        def move(module: nn.Module, maps: Tensor) -> Tensor | None:
            excess = _channel_means(maps) - means[names[name]]
            if isinstance(module, _BatchNorm):
                if module.running_mean is not None:
                    move_(module.running_mean, excess)
                return None
            assert isinstance(module.bias, Tensor)
            move_(module.bias, -excess)
            return maps - excess.to(maps.dtype).to(maps.device).view(1, -1, *[1] * (maps.ndim - 2))

        return move

    with torch.no_grad(), evaluating(smaller, whole):
        for network, at in ((whole, measure), (smaller, correct)):
            with hooked(handle for name, module in network.named_modules() for handle in _watch(module, at(name))):
                network(images)


def _watch(module: nn.Module, see: Callable[[nn.Module, Tensor], Tensor | None]) -> list[RemovableHandle]:
    """Calls `see` with the input of a norm and with the output of a convolution that has a bias."""
    if isinstance(module, _BatchNorm):
        return [module.register_forward_pre_hook(lambda module, inputs: see(module, inputs[0]))]
    if isinstance(module, _ConvNd) and module.bias is not None:
        return [module.register_forward_hook(lambda module, inputs, output: see(module, output))]
    return []


def move_(vector: Tensor, by: Tensor) -> None:
    """Adds `by` [n] to `vector` [n] in place, in double precision on the CPU, because some devices have no double
    precision."""
    vector.copy_((vector.cpu().double() + by.cpu()).to(vector.dtype))


def _channel_means(maps: Tensor) -> Tensor:
    """Mean of each channel of [B, C, ...]: double [C], on the CPU if the device has no double precision."""
    wide = maps.cpu().double() if maps.device.type == "mps" else maps.double()
    return wide.mean([0, *range(2, maps.ndim)])
