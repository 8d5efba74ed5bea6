"""Removes units from a network, or silences them in a copy of the same size; both must give the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.errors import UserError
from secateur.layers import group_width, match_numbers_
from secateur.pruning.graph.flow import Ids, Number
from secateur.pruning.graph.pricing import Axis, Bools

Network = TypeVar("Network", bound=nn.Module)
Indices = dict[str, list[tuple[int, Tensor]]]


def narrowed(network: Network, axes: Iterable[Axis], numbers: Iterable[Number], keep: Bools) -> Network:
    """A new network with only the units marked in `keep`, bool [units]; the given network is not changed.

    Unaffected tensors are copied bit for bit.

    Raises:
        UserError: a layer would have no channels left.
    """
    indices = kept_indices(axes, keep)
    # deepcopy uses the entries of the memo instead of copying, so large tensors are copied once, at their new size.
    memo: dict[int, object] = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if name in indices:
            small = selected(tensor.detach(), indices[name])
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(small, requires_grad=tensor.requires_grad) if is_parameter else small
    smaller = copy.deepcopy(network, memo)
    for old, new in zip(network.modules(), smaller.modules(), strict=True):
        match_numbers_(new, group_width(old))
    extended = np.append(keep, True)
    for number in numbers:
        setattr(smaller.get_submodule(number.module), number.attribute, int(extended[number.ids].sum()))
    return smaller


def kept_indices(axes: Iterable[Axis], keep: Bools) -> Indices:
    """For each tensor that shrinks, pairs of a dimension and the indices, int64 [kept], along it.

    Args:
        keep: bool [units].

    Raises:
        UserError: a layer would have no channels left.
    """
    extended = np.append(keep, True)
    indices: Indices = {}
    for axis in axes:
        kept = np.flatnonzero(extended[axis.units])
        if len(kept) == 0:
            raise UserError(f"The plan removes all channels of {axis.layer}. Every layer must keep at least one.")
        if len(kept) < len(axis.units):
            indices.setdefault(axis.tensor, []).append((axis.dim, torch.from_numpy(kept)))
    return indices


def selected(tensor: Tensor, indices: Sequence[tuple[int, Tensor]]) -> Tensor:
    """The kept entries of a tensor of any shape; `indices` holds dimensions and indices, int64 [kept]."""
    for dim, index in indices:
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor


def silenced(
    network: Network, axes: Iterable[Axis], norms: Iterable[str], layer_norms: Mapping[str, Ids], keep: Bools
) -> Network:
    """A copy of the same size in which the units outside `keep`, bool [units], are silenced.

    Filters, biases and norms of removed channels are zero. So are all weights that read a removed channel, because an
    activation can map zero to another value. Layer norms over channels use only the kept channels.

    Args:
        norms: names of the batch norms; their statistics are not changed.
        layer_norms: for each layer norm over channels, the unit of each channel: int64 [channels].
    """
    copied = copy.deepcopy(network)
    tensors: dict[str, Tensor] = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    statistics = {f"{layer}.{name}" for layer in norms for name in ("running_mean", "running_var")}
    extended = np.append(keep, True)
    with torch.no_grad():
        for axis in axes:
            gone = torch.from_numpy(np.flatnonzero(~extended[axis.units]))
            if len(gone) and axis.tensor not in statistics:
                tensors[axis.tensor].index_fill_(axis.dim, gone.to(tensors[axis.tensor].device), 0.0)
    for name, units in layer_norms.items():
        if not extended[units].all():
            OverKept(torch.from_numpy(np.flatnonzero(extended[units]))).attach(copied.get_submodule(name))
    return copied


class OverKept(TorchFunctionMode):
    """While its module runs, layer norms use only the kept channels; the other channels output zero."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.kept = kept

    def attach(self, module: nn.Module) -> None:
        """Makes the mode active in every call of the module."""
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end, always_call=True)

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self.__enter__()

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.__exit__(None, None, None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs the call; layer norms use only the kept channels."""
        if func is not F.layer_norm:
            return func(*args, **(kwargs or {}))
        return self._normed(*args, **(kwargs or {}))

    def _normed(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        kept = self.kept.to(input.device)
        own = {key: None if tensor is None else tensor[kept] for key, tensor in (("weight", weight), ("bias", bias))}
        narrow = F.layer_norm(input[..., kept], [len(kept)], own["weight"], own["bias"], eps)
        return torch.zeros_like(input).index_copy_(input.ndim - 1, kept, narrow)
