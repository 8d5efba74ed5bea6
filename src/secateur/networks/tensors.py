"""Giving a network the tensors of another whose layers have other widths; finding values that are no numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.layers import group_width, match_numbers_

GroupWidths = dict[str, tuple[int, int]]


def group_widths(network: nn.Module) -> GroupWidths:
    """(input channels, output channels) of one group of every grouped convolution, by its name."""
    widths = {name: group_width(module) for name, module in network.named_modules()}
    return {name: width for name, width in widths.items() if width is not None}


def set_tensors_(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    groups: GroupWidths | None = None,
    fixed: Collection[str] = (),
) -> None:
    """Gives every layer the shape of its tensor and a copy of the values (in the network's dtype, on its device).

    Widths may differ from those of the network; kernels, the width of a group and names may not.

    Args:
        network: any network; left half changed where the tensors are refused.
        tensors: a whole state dict.
        groups: of the network as designed, where a cut may have left it one group; by default as it is.
        fixed: tensors whose shape is to stay.

    Raises:
        UserError: tensors are missing, unknown, or do not fit a layer.
    """
    groups = group_widths(network) if groups is None else groups
    current = network.state_dict()
    missing, unexpected = sorted(current.keys() - tensors.keys()), sorted(tensors.keys() - current.keys())
    if missing or unexpected:
        parts = [f"lack {_some(missing)}"] if missing else []
        parts += [f"have the unknown {_some(unexpected)}"] if unexpected else []
        raise UserError(f"The tensors are of another network: they {' and '.join(parts)}.")
    # A parameter that two layers share stays shared.
    placed: dict[int, Tensor] = {}
    for prefix, module in network.named_modules():
        for key, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            name = f"{prefix}.{key}" if prefix else key
            if name not in current:
                continue  # a buffer that is no part of the state
            if id(old) not in placed:
                _check(name, old, tensors[name], fixed)
                placed[id(old)] = _like(old, tensors[name])
            setattr(module, key, placed[id(old)])
        match_numbers_(module, groups.get(prefix), prefix)


def _check(name: str, old: Tensor, new: Tensor, fixed: Collection[str]) -> None:
    """Refuses a tensor of another rank, kernel or, where that is fixed, shape."""
    same_rank = old.ndim == new.ndim and (old.ndim < 4 or old.shape[2:] == new.shape[2:])
    if not same_rank or (name in fixed and old.shape != new.shape) or 0 in new.shape:
        raise UserError(f"The tensor {name} has the shape {list(new.shape)}; the network has {list(old.shape)} there.")


def _like(old: Tensor, new: Tensor) -> Tensor:
    """A copy of `new` as what `old` is: parameter or buffer, dtype and device."""
    device = new.device if old.is_meta else old.device
    value = new.detach().to(device=device, dtype=old.dtype, copy=True).contiguous()
    return nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value


def _some(names: Sequence[str]) -> str:
    """Up to three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def flaw_of(tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with the values of tensors, and in which: "NaN in model.3.conv.weight"; "" where nothing is.

    A sum reads each value once, in a third of the time of looking at all of them; it is finite where they are.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        narrow = tensor.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        values = tensor if narrow else tensor.float()
        if not math.isfinite(float(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)))):
            if bool(values.isnan().any()):
                return f"NaN in {name}"
            if not bool(values.isfinite().all()):
                return f"infinite values in {name}"
        if name.endswith("running_var") and float(values.min()) < 0:
            return f"a negative variance in {name}"
    return ""
