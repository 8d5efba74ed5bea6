"""Precision of a training: its selection, autocast in the forward pass, and gradient scaling."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from secateur.errors import UserError

DTYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def fast_bf16_on_cpu() -> bool:
    """Whether this processor supports bf16 natively (AVX512-BF16 or AMX); emulated bf16 is slower than fp32."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_precision(amp: str, device_type: str) -> str:
    """`no`, `bf16` or `fp16` for the option --amp on a type of device.

    Raises:
        UserError: the device does not support the precision.
    """
    if amp == "off":
        return "no"
    if device_type != "cuda":
        if amp == "fp16":
            raise UserError("Option amp is fp16, which needs a CUDA device. Use auto, bf16 or off.")
        return "bf16" if amp == "bf16" or (device_type == "cpu" and fast_bf16_on_cpu()) else "no"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    if amp == "bf16" and not native:
        raise UserError("Option amp is bf16, which this CUDA device does not support. Use auto, fp16 or off.")
    if amp == "auto":
        return "bf16" if native else "fp16"
    return amp


class Precision:
    """Precision of one training: nothing in fp32, autocast in bf16, autocast and a gradient scaler in fp16.

    Args:
        name: `no`, `bf16` or `fp16`.
        device_type: `cpu`, `cuda` or `mps`.
    """

    def __init__(self, name: str, device_type: str) -> None:
        self.name, self.device_type = name, device_type
        self.scaler = torch.amp.GradScaler(device_type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[object]:
        """Context for the forward pass; the loss is computed outside of it."""
        dtype = DTYPES[self.name]
        return nullcontext() if dtype is None else torch.autocast(self.device_type, dtype=dtype)

    def backward(self, loss: Tensor) -> None:
        """Computes gradients of the loss, a scalar; in fp16 they are scaled until `clip_`."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip_(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], most: float) -> Tensor:
        """Unscales the gradients, limits their total norm to `most`, and returns the previous norm, a scalar."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        return nn.utils.clip_grad_norm_(parameters, most)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Runs the optimizer step; the scaler skips it if a gradient is infinite."""
        if self.scaler is None:
            optimizer.step()
            return
        self.scaler.step(optimizer)
        self.scaler.update()


def full_precision(values: Tensor) -> Tensor:
    """Converts half precision of any shape to float32; float32 and float64 are not changed."""
    return values if values.dtype == torch.float64 else values.float()


def outputs_in_full_precision(outputs: Any) -> Any:
    """Converts all floating-point tensors in nested tuples, lists and dicts to full precision."""
    return tree_map_only(
        Tensor, lambda values: full_precision(values) if values.is_floating_point() else values, outputs
    )
