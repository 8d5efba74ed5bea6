"""What a detector costs: parameters and floating-point operations, counted from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateur.detector.attention import Attention
from secateur.detector.model import Detector
from secateur.errors import UserError


@dataclass(frozen=True)
class Cost:
    """Price of one detector.

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


def count(detector: Detector, image_size: int | tuple[int, int] = 640) -> Cost:
    """Parameters, and FLOPs for an image of `image_size` px (one side, or height and width).

    Raises:
        UserError: the size is not a multiple of the coarsest stride.
    """
    parameters = sum(p.numel() for p in detector.parameters())
    return Cost(parameters, sum(layer_flops(detector, image_size).values()))


def layer_flops(detector: Detector, image_size: int | tuple[int, int] = 640) -> dict[str, int]:
    """FLOPs of every convolution and linear layer by its module name (none inside an attention, see `Cost`)."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    coarsest = int(max(detector.strides))
    if height < 1 or width < 1 or height % coarsest or width % coarsest:
        raise UserError(f"The image size {height}x{width} is not a multiple of the coarsest stride {coarsest}.")
    flops: dict[str, int] = {}
    hooks = []
    attentions = [m for m in detector.modules() if isinstance(m, Attention)]
    inside_attention = {id(m) for attention in attentions for m in attention.modules()}
    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and id(module) not in inside_attention:
            hooks.append(module.register_forward_hook(_counter(name, flops)))
    try:
        detector.run_shapes(height, width)
    finally:
        for hook in hooks:
            hook.remove()
    return flops


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
