"""Batch norm over the batch of all processes, so that several processes take the same steps as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from secateur.training.distributed import total_over_processes, world_size
from secateur.training.hooks import Hook
from secateur.training.optimization.precision import full_precision
from secateur.training.run import TrainingRun


class CrossProcessBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the total batch on any backend (SyncBatchNorm of torch needs CUDA); same state dict as
    BatchNorm2d.

    It computes the mean first, then the variance, as in the single-process kernel, because the sum of squares is
    imprecise.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises `input` [B, C, H, W]."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        values = full_precision(input)
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


class HoldNorms(Hook):
    """Batch norms use and keep their running statistics; their scales and shifts are trained.

    A step then sees the network in the form in which it is evaluated, even if the images of a batch are few or unusual.
    """

    def start(self, run: TrainingRun) -> None:
        """Sets the norms to evaluation mode before every forward pass of the training."""
        run.handles.append(run.network.register_forward_pre_hook(_evaluating_norms))


def _evaluating_norms(network: nn.Module, inputs: Any) -> None:
    for module in network.modules() if network.training else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def synchronise_batchnorm_(module: nn.Module, device_type: str) -> nn.Module:
    """Replaces every BatchNorm2d in `module` by one over the total batch; parameters and buffers are shared."""
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
