"""What removed blocks added on average, made up for in what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from secateur.layers import evaluating, hooked


def match_means_(smaller: nn.Module, whole: nn.Module, names: Mapping[str, str], images: Tensor) -> None:
    """Makes up for what removed blocks added on average: every norm of `smaller` sees its input centred as in `whole`.

    The mean of each norm's input over the images is measured in both networks, in eval mode, and the running mean moves
    by the difference; a convolution with a bias moves that. One pass, so each layer is measured behind those that are
    corrected already. The bias correction of https://arxiv.org/abs/1906.04721, for a block instead of rounded weights.

    Args:
        names: module names of `smaller` -> those of the same modules in `whole`.
        images: [B, C, H, W] in 0..1.
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
    """Shows `see` what a norm reads and what a convolution with a bias gives."""
    if isinstance(module, _BatchNorm):
        return [module.register_forward_pre_hook(lambda module, inputs: see(module, inputs[0]))]
    if isinstance(module, _ConvNd) and module.bias is not None:
        return [module.register_forward_hook(lambda module, inputs, output: see(module, output))]
    return []


def move_(vector: Tensor, by: Tensor) -> None:
    """Adds in double precision, on the CPU: some devices have none."""
    vector.copy_((vector.cpu().double() + by.cpu()).to(vector.dtype))


def _channel_means(maps: Tensor) -> Tensor:
    """Mean of each channel of [B, C, ...], double [C] on the CPU where the device has no double precision."""
    wide = maps.cpu().double() if maps.device.type == "mps" else maps.double()
    return wide.mean([0, *range(2, maps.ndim)])
