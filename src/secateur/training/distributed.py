"""Communication between processes: rank, process group, results of the first process, and sums."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.machine import pick_device
from secateur.training.settings import WAIT_MINUTES

T = TypeVar("T")
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def rank_and_world() -> tuple[int, int]:
    """Rank of this process and number of processes from `torchrun`; (0, 1) without it.

    Raises:
        UserError: the two variables are inconsistent.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world:
        raise UserError(f"RANK is {rank}, but WORLD_SIZE is {world}. Start the processes with torchrun.")
    return rank, world


def join_processes(device: torch.device, wait_minutes: float = WAIT_MINUTES) -> PartialState:
    """Opens the process group; the first call of a program creates it, later calls reuse it.

    Args:
        device: device of this process. GPUs use NCCL, all others gloo.
        wait_minutes: timeout of collective operations. The defaults of torch, 10 to 30 minutes, would abort a training
            whose first process validates for longer.

    Raises:
        UserError: the device has another type than that of the group.
    """
    several = rank_and_world()[1] > 1
    # A single process keeps Accelerate off the GPU, because Accelerate would keep one device for the whole program,
    # while each training sets its own.
    state = PartialState(cpu=not several or device.type != "cuda", timeout=timedelta(minutes=wait_minutes))
    if several and state.device.type != device.type:
        raise UserError(
            f"This process group was initialised for {state.device.type}, but the training was requested on {device}; "
            "choose the same --device for all trainings, cpu or CUDA GPUs."
        )
    if several and device.type == "cuda":
        torch.cuda.set_device(device)  # Accelerate uses the GPUs in order; the user may have set others
    return state


def start_accelerator(device: torch.device, folder: Path, *, tensorboard: bool, wait_minutes: float) -> Accelerator:
    """The Accelerator of one training, for its processes and trackers. Device and precision are handled by the
    training.

    Raises:
        UserError: the program has created an Accelerator with other settings, which Accelerate keeps until the end.
    """
    state = join_processes(device, wait_minutes)
    options: dict[str, Any] = {"log_with": "tensorboard", "project_dir": str(folder)} if tensorboard else {}
    try:
        # No mixed precision here: Accelerate would keep the setting of the first training.
        return Accelerator(mixed_precision="no", cpu=state.device.type == "cpu", device_placement=False, **options)
    except ValueError as error:
        raise UserError(f"This program has created an Accelerator that trainings cannot use: {error}") from error


def share_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """The module wrapped such that backward passes average gradients over all processes; unchanged for a single
    process."""
    if world_size() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def once(make: Callable[[], str], device: str = "auto") -> str:
    """Runs `make` on the first process and returns its result on all, for example to create a run folder only once.

    Args:
        device: device of the training, as `TrainSettings.device`.
    """
    rank, world = rank_and_world()
    if world == 1:
        return make()
    join_processes(pick_device(device))  # the training reuses this group
    return of_first(make() if rank == 0 else "")


def of_first(value: T) -> T:
    """The value on the first process that has joined, on all processes; `value` for a single process."""
    if world_size() == 1:
        return value
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]


def wait_for_all() -> None:
    """Waits for all processes that have joined."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def one_for_all() -> Iterator[None]:
    """Context in which this process computes sums on its own, while the others wait for it."""
    before = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(before)


def world_size() -> int:
    """Number of processes that currently train together."""
    if _ALONE.get():
        return 1
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Element-wise sum over all processes of a tensor of any shape; unchanged for a single process."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


class _Total(torch.autograd.Function):
    """Sum over processes; its gradient is also a sum over processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_processes(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0].contiguous())


def total_over_processes(values: Tensor) -> Tensor:
    """Differentiable element-wise sum over all processes of a tensor of any shape."""
    result: Tensor = _Total.apply(values)
    return result
