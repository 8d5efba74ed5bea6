"""Sets the tensors of a network from another network with different widths; finds non-finite values."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.layers import group_width, match_numbers_

GroupWidths = dict[str, tuple[int, int]]


def group_widths(network: nn.Module) -> GroupWidths:
    """(input channels, output channels) per group of every grouped convolution, by name."""
    widths = {name: group_width(module) for name, module in network.named_modules()}
    return {name: width for name, width in widths.items() if width is not None}


def set_tensors_(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    groups: GroupWidths | None = None,
    fixed: Collection[str] = (),
) -> None:
    """Gives every layer the shape and a copy of its tensor, any shape, in the dtype and on the device of the network.

    Widths may differ from those of the network; kernels, widths of groups and names must not.

    Args:
        network: any network; partly changed if the tensors are rejected.
        tensors: a complete state dict.
        groups: group widths of the network as designed, if a cut may have left it a single group; default: its current
            ones.
        fixed: names of tensors whose shape must not change.

    Raises:
        UserError: tensors are missing, unknown, or do not fit a layer.
    """
    groups = group_widths(network) if groups is None else groups
    current = network.state_dict()
    missing, unexpected = sorted(current.keys() - tensors.keys()), sorted(tensors.keys() - current.keys())
    if missing or unexpected:
        parts = [f"lack {_some(missing)}"] if missing else []
        parts += [f"include the unknown {_some(unexpected)}"] if unexpected else []
        raise UserError(f"The tensors belong to another network: they {' and '.join(parts)}.")
    # A parameter that two layers share is shared again.
    placed: dict[int, Tensor] = {}
    for prefix, module in network.named_modules():
        for key, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            name = f"{prefix}.{key}" if prefix else key
            if name not in current:
                continue  # a buffer that is not in the state dict
            if id(old) not in placed:
                _check(name, old, tensors[name], fixed)
                placed[id(old)] = _like(old, tensors[name])
            setattr(module, key, placed[id(old)])
        match_numbers_(module, groups.get(prefix), prefix)


def _check(name: str, old: Tensor, new: Tensor, fixed: Collection[str]) -> None:
    """Rejects a tensor with another rank, kernel or, if it is fixed, shape."""
    same_rank = old.ndim == new.ndim and (old.ndim < 4 or old.shape[2:] == new.shape[2:])
    if not same_rank or (name in fixed and old.shape != new.shape) or 0 in new.shape:
        raise UserError(f"The tensor {name} has the shape {list(new.shape)}, but the network needs {list(old.shape)}.")


def _like(old: Tensor, new: Tensor) -> Tensor:
    """A copy of `new` with the type (parameter or buffer), dtype and device of `old`."""
    device = new.device if old.is_meta else old.device
    value = new.detach().to(device=device, dtype=old.dtype, copy=True).contiguous()
    return nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value


def _some(names: Sequence[str]) -> str:
    """Up to three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def flaw_of(tensors: Mapping[str, Tensor]) -> str:
    """Describes invalid values of tensors of any shape, and where: "NaN in model.3.conv.weight"; "" if there are none.

    A sum reads each value once, in a third of the time of checking each value; it is finite if all values are.
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
