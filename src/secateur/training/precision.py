"""Which device and which precision a training uses, and the Accelerator that carries them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from secateur.errors import UserError
from secateur.training.distributed import rank_and_world
from secateur.training.settings import TrainSettings


def fast_bf16_on_cpu() -> bool:
    """Whether this processor multiplies bf16 natively (AVX512-BF16 or AMX); emulated bf16 is slower than fp32."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_precision(amp: str, device_type: str) -> str:
    """`no`, `bf16` or `fp16` for an --amp option on a kind of device.

    Raises:
        UserError: a precision that the device lacks.
    """
    if amp == "off":
        return "no"
    if device_type != "cuda":
        if amp == "fp16":
            raise UserError("Option amp is fp16, which needs a CUDA device; use auto, bf16 or off here.")
        return "bf16" if amp == "bf16" or fast_bf16_on_cpu() else "no"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    if amp == "bf16" and not native:
        raise UserError("Option amp is bf16, which this CUDA device lacks; use auto, fp16 or off.")
    if amp == "auto":
        return "bf16" if native else "fp16"
    return amp


def start_accelerator(settings: TrainSettings, folder: Path) -> Accelerator:
    """The Accelerator of one training: device, processes, precision, and TensorBoard where it is installed.

    Raises:
        UserError: the device or the precision is not there, or the batch does not divide among the processes.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("Option device is cuda, but no CUDA device is visible; use auto or cpu.")
    use_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    _, world = rank_and_world()
    if settings.batch_size % world:
        raise UserError(
            f"Option batch_size is {settings.batch_size}, the total over {world} processes; make it a multiple of it."
        )
    precision = choose_precision(settings.amp, "cpu" if use_cpu else "cuda")
    # Accelerate keeps its choices for the whole program; stages that follow each other may choose anew. The process
    # group, where there is one, stays.
    AcceleratorState._reset_state(reset_partial_state=world == 1)
    options: dict[str, Any] = {"mixed_precision": precision, "cpu": use_cpu}
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is not None:
        options |= {"log_with": "tensorboard", "project_dir": str(folder)}
    return Accelerator(**options)
