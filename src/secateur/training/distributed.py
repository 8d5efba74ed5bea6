"""What processes share so that several take the steps of one: sums of counts, and BatchNorm over the total batch."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from secateur.errors import UserError


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are, as `torchrun` tells; (0, 1) without it.

    Raises:
        UserError: the two variables contradict each other.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world:
        raise UserError(f"RANK is {rank} and WORLD_SIZE is {world}; start the processes with torchrun.")
    return rank, world


def world_size() -> int:
    """Processes that train together right now."""
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


class CrossProcessBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the total batch on any backend (torch's SyncBatchNorm needs CUDA); same state dict as BatchNorm2d.

    Two passes, mean first, as the one-process kernel: the sum of squares would lose digits.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises `input` [B, C, H, W]."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        values = input.float()
        count = total_over_processes(values.new_tensor(float(values.numel() // values.shape[1])))
        mean = total_over_processes(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = total_over_processes(centred.square().sum((0, 2, 3))) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                momentum = 0.0 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        result = centred * scale[:, None, None]
        if self.bias is not None:
            result = result + self.bias[:, None, None]
        return result.to(input.dtype)


def synchronise_batchnorm_(module: nn.Module, device_type: str) -> nn.Module:
    """Replaces every BatchNorm2d inside `module` by one over the total batch; parameters and buffers are shared."""
    if device_type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return _replace_(module, nn.BatchNorm2d, CrossProcessBatchNorm2d)


def separate_batchnorm_(module: nn.Module) -> nn.Module:
    """Undoes `synchronise_batchnorm_`: plain BatchNorm2d with the same parameters and buffers."""
    _replace_(module, CrossProcessBatchNorm2d, nn.BatchNorm2d)
    return _replace_(module, nn.SyncBatchNorm, nn.BatchNorm2d)


def _replace_(module: nn.Module, old: type[nn.Module], new: type[nn.BatchNorm2d]) -> nn.Module:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is old and isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _twin(child, new))
    return module


def _twin(norm: nn.modules.batchnorm._BatchNorm, kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    twin = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    if norm.affine:
        twin.weight, twin.bias = norm.weight, norm.bias
    if norm.track_running_stats:
        twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
        twin.num_batches_tracked = norm.num_batches_tracked
    return twin.train(norm.training)
