"""What a network costs: parameters and floating-point operations, counted from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateur.detector.architecture import DetectionNetwork
from secateur.errors import UserError
from secateur.layers import NormsPass


@dataclass(frozen=True)
class Cost:
    """Price of one network.

    Attributes:
        parameters: number of trainable values.
        flops: two for each multiply-accumulate of convolutions and linear layers, for one image, BatchNorm unfolded.
            What happens inside an attention (its projections and its products) is left out, as in published counts.
    """

    parameters: int
    flops: int

    @property
    def gflops(self) -> float:
        """FLOPs in billions."""
        return self.flops / 1e9


def count(network: DetectionNetwork, image_size: int | tuple[int, int] = 640) -> Cost:
    """Parameters, and FLOPs for an image of `image_size` px (one side, or height and width).

    Raises:
        UserError: the size is not a multiple of the coarsest stride.
    """
    assert isinstance(network, nn.Module)
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, sum(layer_flops(network, image_size).values()))


def layer_flops(network: DetectionNetwork, image_size: int | tuple[int, int] = 640) -> dict[str, int]:
    """FLOPs of every convolution and linear layer by its module name (none inside an attention, see `Cost`)."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    coarsest = int(max(network.strides))
    if height < 1 or width < 1 or height % coarsest or width % coarsest:
        raise UserError(f"The image size {height}x{width} is not a multiple of the coarsest stride {coarsest}.")
    assert isinstance(network, nn.Module)
    example = network.example_inputs()[0]
    images = torch.empty(1, example.shape[1], height, width, dtype=example.dtype, device="meta")
    flops: dict[str, int] = {}
    hooks = []
    inside_attention = {id(m) for module in network.modules() if _is_attention(module) for m in module.modules()}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and id(module) not in inside_attention:
            hooks.append(module.register_forward_hook(_counter(name, flops)))
    try:
        _run_shapes(network, images)
    finally:
        for hook in hooks:
            hook.remove()
    return flops


def _run_shapes(network: nn.Module, images: Tensor) -> None:
    """A forward pass in eval mode on the meta device: shapes without arithmetic or memory; hooks fire."""
    tensors: dict[str, Tensor] = dict(network.named_parameters()) | dict(network.named_buffers())
    meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    training = [module for module in network.modules() if module.training]
    try:
        network.eval()
        with torch.no_grad(), NormsPass():
            functional_call(network, meta, (images,))
    finally:
        for module in training:
            module.training = True


def _is_attention(module: nn.Module) -> bool:
    """Whether the projections in of queries, keys and values are one tensor, as in `nn.MultiheadAttention`."""
    return any(name == "in_proj_weight" for name, _ in module.named_parameters(recurse=False))


def _counter(name: str, flops: dict[str, int]) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        flops[name] = flops.get(name, 0) + 2 * _macs(module, inputs[0], output)

    return hook


def _macs(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Multiply-accumulates of one call."""
    if isinstance(module, nn.Conv2d):
        return y.numel() * module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        return x.numel() * module.weight[0].numel()
    assert isinstance(module, nn.Linear)
    return y.numel() * module.in_features
