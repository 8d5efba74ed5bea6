"""What processes share: who they are, the group that they talk in, results of one for all, and sums of counts."""

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
    """This process's number and how many there are, as `torchrun` tells; (0, 1) without it.

    Raises:
        UserError: the two variables contradict each other.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world:
        raise UserError(f"RANK is {rank} and WORLD_SIZE is {world}; start the processes with torchrun.")
    return rank, world


def join_processes(device: torch.device, wait_minutes: float = WAIT_MINUTES) -> PartialState:
    """Opens the group of all processes; the first call of a program decides, later ones find it open.

    Args:
        device: this process's. GPUs talk by NCCL, all else by gloo.
        wait_minutes: how long a process waits in a collective for the others. torch's own 10 to 30 minutes would end a
            training whose first process validates for longer.

    Raises:
        UserError: the device is of another kind than the group's.
    """
    several = rank_and_world()[1] > 1
    # One process alone keeps Accelerate off the GPU: it would hold on to a device for the whole program, while each
    # training names its own.
    state = PartialState(cpu=not several or device.type != "cuda", timeout=timedelta(minutes=wait_minutes))
    if several and state.device.type != device.type:
        raise UserError(
            f"This process group was initialised for {state.device.type}, but the training was requested on {device}; "
            "choose the same --device for all trainings, cpu or CUDA GPUs."
        )
    if several and device.type == "cuda":
        torch.cuda.set_device(device)  # Accelerate takes the GPUs in their order, the user may have named others
    return state


def start_accelerator(device: torch.device, folder: Path, *, tensorboard: bool, wait_minutes: float) -> Accelerator:
    """The Accelerator of one training: its processes and trackers. Device and precision are the training's own.

    Raises:
        UserError: the program has made an Accelerator with other choices, which Accelerate keeps to the end.
    """
    state = join_processes(device, wait_minutes)
    options: dict[str, Any] = {"log_with": "tensorboard", "project_dir": str(folder)} if tensorboard else {}
    try:
        # No mixed precision here: Accelerate would keep the first training's for all that follow.
        return Accelerator(mixed_precision="no", cpu=state.device.type == "cpu", device_placement=False, **options)
    except ValueError as error:
        raise UserError(f"This program has made an Accelerator that trainings cannot share: {error}") from error


def share_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """The module whose backward passes average gradients over all processes; itself when there is one."""
    if world_size() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def once(make: Callable[[], str], device: str = "auto") -> str:
    """What `make` gives on the first process, known to all: several processes must not each make a run folder.

    Args:
        device: that the training will use, as `TrainSettings.device`.
    """
    rank, world = rank_and_world()
    if world == 1:
        return make()
    join_processes(pick_device(device))  # the group that the training goes on with
    return of_first(make() if rank == 0 else "")


def of_first(value: T) -> T:
    """What the first of the processes that have joined gives here, known to all; `value` where there is one."""
    if world_size() == 1:
        return value
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]


def wait_for_all() -> None:
    """Returns once all processes that have joined are here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def one_for_all() -> Iterator[None]:
    """Inside, this process sums for itself: what the first one measures while the others wait for it."""
    before = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(before)


def world_size() -> int:
    """Processes that train together right now."""
    if _ALONE.get():
        return 1
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """The element-wise sum over all processes; the tensor itself when there is one."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


class _Total(torch.autograd.Function):
    """The sum over processes, whose gradient is again a sum over processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_processes(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0].contiguous())


def total_over_processes(values: Tensor) -> Tensor:
    """The element-wise sum over all processes, to differentiate: each adds its part to the gradients of all."""
    result: Tensor = _Total.apply(values)
    return result
