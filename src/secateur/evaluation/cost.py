"""Costs of a network: parameters and FLOPs, counted from shapes without computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.layers import hooked, is_attention, shape_pass
from secateur.networks.architecture import example_image, strides_of

BYTES = 4  # bytes of an fp32 value


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one network.

    Attributes:
        parameters: number of trainable values.
        flops: two per multiply-accumulate of convolutions and linear layers, for one image, with BatchNorm not folded.
            Attention (its projections and products) is not counted, as in published figures.
    """

    parameters: int
    flops: int

    @property
    def gflops(self) -> float:
        """FLOPs in billions."""
        return self.flops / 1e9


@dataclass(frozen=True)
class LayerWork:
    """The work of one convolution or linear layer for one image.

    Attributes:
        kind: "conv 3x3", "conv 3x3/2" (stride 2), "grouped 3x3", "transposed 2x2/2" or "linear".
        reads, emits: input and output channels.
        map: height and width of the output; (1, 1) for a linear layer on vectors.
        flops: two per multiply-accumulate.
        activations: number of input and output values.
        weights: number of weight values.
    """

    kind: str
    reads: int
    emits: int
    map: tuple[int, int]
    flops: int
    activations: int
    weights: int

    def intensity(self, images: int = 1) -> float:
        """Arithmetic intensity: FLOPs per byte moved, in fp32, at a batch size of `images`."""
        return images * self.flops / (BYTES * (images * self.activations + self.weights))

    def again(self, other: LayerWork) -> LayerWork:
        """The summed work of two calls of the same layer."""
        return replace(self, flops=self.flops + other.flops, activations=self.activations + other.activations)


def kind_of(kernel: Sequence[int], stride: Sequence[int], *, grouped: bool = False, transposed: bool = False) -> str:
    """The kind of a convolution as in `LayerWork`."""
    word = "transposed" if transposed else "grouped" if grouped else "conv"
    step = max(stride, default=1)
    return f"{word} {'x'.join(map(str, kernel))}" + (f"/{step}" if step > 1 else "")


def count(network: nn.Module, image_size: int | tuple[int, int] = 640) -> NetworkCost:
    """Parameters, and FLOPs for an image of `image_size` px (one side, or height and width).

    Raises:
        UserError: the size is not a multiple of the largest stride.
    """
    parameters = sum(p.numel() for p in network.parameters())
    return NetworkCost(parameters, sum(layer_flops(network, image_size).values()))


def layer_flops(network: nn.Module, image_size: int | tuple[int, int] = 640) -> dict[str, int]:
    """FLOPs of every convolution and linear layer by module name; layers inside attention are omitted, see
    `NetworkCost`.
    """
    return {name: work.flops for name, work in layer_work(network, image_size).items()}


def layer_work(network: nn.Module, image_size: int | tuple[int, int] = 640) -> dict[str, LayerWork]:
    """The work of every convolution and linear layer by module name; layers inside attention are omitted, see
    `NetworkCost`.

    Raises:
        UserError: the size is not a multiple of the largest stride.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    coarsest = int(max(strides_of(network), default=1))
    if height < 1 or width < 1 or height % coarsest or width % coarsest:
        raise UserError(f"The image size {height}x{width} is not a multiple of the largest stride {coarsest}.")
    example = example_image(network)
    images = torch.empty(1, example.shape[1], height, width, dtype=example.dtype, device="meta")
    work: dict[str, LayerWork] = {}
    hooks = []
    inside_attention = {id(m) for module in network.modules() if is_attention(module) for m in module.modules()}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and id(module) not in inside_attention:
            hooks.append(module.register_forward_hook(_counter(name, work)))
    with hooked(hooks):
        shape_pass(network, images)
    return work


def _counter(name: str, known: dict[str, LayerWork]) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work = work_of(module, inputs[0], output, 1)
        known[name] = work if name not in known else known[name].again(work)

    return hook


def work_of(module: nn.Module, x: Tensor, y: Tensor, images: int) -> LayerWork:
    """The work of one call of a convolution or linear layer, per image.

    Args:
        module: the layer.
        x: its input, [B, C, H, W] or [..., features].
        y: its output, of the same layout.
        images: batch size of the call; the first axis of a linear layer's input may be another one.
    """
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    weights = module.weight.numel()
    moved = (x.numel() + y.numel()) // images
    flops = 2 * _macs(module, x, y) // images
    if isinstance(module, nn.Linear):
        return LayerWork("linear", module.in_features, module.out_features, (1, 1), flops, moved, weights)
    kind = kind_of(
        module.kernel_size,
        module.stride,
        grouped=module.groups > 1,
        transposed=isinstance(module, nn.ConvTranspose2d),
    )
    height, width = y.shape[-2:]
    return LayerWork(kind, module.in_channels, module.out_channels, (height, width), flops, moved, weights)


def _macs(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Multiply-accumulates of one call with input `x` and output `y`, see `work_of`."""
    if isinstance(module, nn.Conv2d):
        return y.numel() * module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        return x.numel() * module.weight[0].numel()
    assert isinstance(module, nn.Linear)
    return y.numel() * module.in_features
