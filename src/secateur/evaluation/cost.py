"""What a network costs: parameters and floating-point operations, counted from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.layers import hooked, is_attention, shape_pass
from secateur.networks.architecture import example_image, strides_of

BYTES = 4  # of a value in fp32


@dataclass(frozen=True)
class NetworkCost:
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


@dataclass(frozen=True)
class LayerWork:
    """What one convolution or linear layer does for one image.

    Attributes:
        kind: "conv 3x3", "conv 3x3/2" (of stride 2), "grouped 3x3", "transposed 2x2/2" or "linear".
        reads, emits: its channels.
        map: height and width of what it emits; (1, 1) of a linear layer on vectors.
        flops: two for each multiply-accumulate.
        activations: values that it reads and writes.
        weights: values of its weight.
    """

    kind: str
    reads: int
    emits: int
    map: tuple[int, int]
    flops: int
    activations: int
    weights: int

    def intensity(self, images: int = 1) -> float:
        """FLOPs for every byte that has to be moved, in fp32, where so many images are computed at once."""
        return images * self.flops / (BYTES * (images * self.activations + self.weights))

    def again(self, other: LayerWork) -> LayerWork:
        """The work of two calls of the same layer."""
        return replace(self, flops=self.flops + other.flops, activations=self.activations + other.activations)


def kind_of(kernel: Sequence[int], stride: Sequence[int], *, grouped: bool = False, transposed: bool = False) -> str:
    """A convolution in words, as `LayerWork` has them."""
    word = "transposed" if transposed else "grouped" if grouped else "conv"
    step = max(stride, default=1)
    return f"{word} {'x'.join(map(str, kernel))}" + (f"/{step}" if step > 1 else "")


def count(network: nn.Module, image_size: int | tuple[int, int] = 640) -> NetworkCost:
    """Parameters, and FLOPs for an image of `image_size` px (one side, or height and width).

    Raises:
        UserError: the size is not a multiple of the coarsest stride.
    """
    parameters = sum(p.numel() for p in network.parameters())
    return NetworkCost(parameters, sum(layer_flops(network, image_size).values()))


def layer_flops(network: nn.Module, image_size: int | tuple[int, int] = 640) -> dict[str, int]:
    """FLOPs of every convolution and linear layer by its module name (none inside an attention, see `NetworkCost`)."""
    return {name: work.flops for name, work in layer_work(network, image_size).items()}


def layer_work(network: nn.Module, image_size: int | tuple[int, int] = 640) -> dict[str, LayerWork]:
    """What every convolution and linear layer does, by its module name (none inside an attention, see `NetworkCost`).

    Raises:
        UserError: the size is not a multiple of the coarsest stride.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    coarsest = int(max(strides_of(network), default=1))
    if height < 1 or width < 1 or height % coarsest or width % coarsest:
        raise UserError(f"The image size {height}x{width} is not a multiple of the coarsest stride {coarsest}.")
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
    """The work of one call of a convolution or linear layer for each of its images.

    Args:
        x: what it reads.
        y: what it emits.
        images: how many of them the call computes; a linear layer's first axis need not be theirs.
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
    """Multiply-accumulates of one call."""
    if isinstance(module, nn.Conv2d):
        return y.numel() * module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        return x.numel() * module.weight[0].numel()
    assert isinstance(module, nn.Linear)
    return y.numel() * module.in_features
