"""Tensors that say they are on another device and are computed on the CPU: what mixes devices fails here as on a GPU.

A `GPU` inside `pretended()` makes tensors of a class of their own. They keep their values in a tensor of the CPU, and
every operation on them is checked as CUDA would: all tensors of an operation are on one device, but for copies, indices
and single numbers of the CPU; generators are those of the device; NumPy reads none of them. Their device calls itself
"meta", for which PyTorch asks no driver.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from secateur.pruning.graph import tracing

GPU = torch.device("meta")
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default, aten.to.dtype_layout}
INDEXED = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
           aten._index_put_impl_.default}  # fmt: skip
"""Operations of which CPU indices are taken for tensors of a GPU."""
POINTWISE = torch.Tag.pointwise
"""Operations in which a single number of the CPU is taken for one of the GPU."""


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        assert not isinstance(held, OnGpu)
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=GPU, requires_grad=False,
        )  # fmt: skip
        made.held = held
        return made  # type: ignore[no-any-return]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.held!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        """As of a tensor on a GPU."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    __array__ = numpy

    def tolist(self) -> Any:
        """The values, for which the program waits."""
        return self.held.tolist()

    def new_tensor(self, data: Any, **how: Any) -> Tensor:  # type: ignore[override]
        """New values on the same device."""
        return OnGpu(torch.tensor(data, dtype=how.get("dtype", self.dtype)))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a file it is a tensor of the CPU."""
        return self.held.detach().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Makes tensors on the GPU where that is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    any_gpu = any(isinstance(leaf, OnGpu) for leaf in given)
    if any_gpu:
        _check(func, args, given)
    asked = kwargs.get("device")
    on_gpu = any_gpu if asked is None else torch.device(asked) == GPU
    generator = kwargs.get("generator")
    if generator is not None and on_gpu:
        raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    kwargs.pop("pin_memory", None)
    plain_args, plain_kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    if not on_gpu:
        if any_gpu and func not in COPIES and asked is None:
            raise AssertionError(func)
        return given[0] if _writes(func) and isinstance(out, Tensor) else out
    wrapped = tree_map(lambda leaf: OnGpu(leaf) if isinstance(leaf, Tensor) else leaf, out)
    if _writes(func) or any_gpu:
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if any_gpu else wrapped
    return wrapped


def _writes(func: Any) -> bool:
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments)


def _check(func: Any, args: Any, given: list[Tensor]) -> None:
    """Refuses what CUDA refuses.

    Raises:
        RuntimeError: tensors of two devices.
    """
    if func in COPIES:
        return
    others = [leaf for leaf in given if not isinstance(leaf, OnGpu)]
    if POINTWISE in func.tags:
        others = [leaf for leaf in others if leaf.ndim > 0]
    if func in INDEXED and isinstance(args[0], OnGpu):
        indices = {id(leaf) for leaf in args[1] if leaf is not None}
        others = [leaf for leaf in others if id(leaf) not in indices and leaf.ndim > 0]
    if others:
        shapes = [f"{'gpu' if isinstance(leaf, OnGpu) else 'cpu'} {list(leaf.shape)}" for leaf in given]
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} was given {', '.join(shapes)}")


def _traced_on_cpu(network: nn.Module, *inputs: Any, **how: Any) -> Any:
    """`torch.export` follows plain tensors alone, and a graph is of no device."""
    with _disable_current_modes(), ExitStack() as stack:
        for owner, name, before in _REAL:
            stack.enter_context(patch.object(owner, name, before))
        plain = copy.deepcopy(network)
        for module in plain.modules():
            for kind in (module._parameters, module._buffers):
                kind.update({name: _plain(tensor) for name, tensor in kind.items()})
        return _trace(plain, *tree_map(lambda leaf: leaf.held if isinstance(leaf, OnGpu) else leaf, inputs), **how)


def _plain(tensor: Tensor | None) -> Tensor | None:
    if not isinstance(tensor, OnGpu):
        return tensor
    return nn.Parameter(tensor.held, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else tensor.held


def _autocast(kind: str, **how: Any) -> Any:
    return _REAL[0][2]("cpu", enabled=False) if kind == GPU.type else _REAL[0][2](kind, **how)


def _autocast_enabled(kind: str) -> bool:
    return bool(kind != GPU.type and _REAL[1][2](kind))


def _tensor(data: Any, **how: Any) -> Tensor:
    there = how.get("device") is not None and torch.device(how["device"]) == GPU
    made: Tensor = _REAL[2][2](data, **{**how, "device": "cpu"} if there else how)
    return OnGpu(made) if there else made


def _unfused(kind: Any) -> Any:
    """The optimizer without its kernel for a GPU."""
    return lambda *words, **how: kind(*words, **{**how, "fused": False})


_trace = tracing._trace
_REAL = tuple(
    (torch, name, getattr(torch, name)) for name in ("autocast", "is_autocast_enabled", "tensor", "inference_mode")
)


@contextmanager
def pretended() -> Iterator[torch.device]:
    """A GPU to work on, without autocast."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    # A parameter that moves is a new one: its old object could not hold values of the other class.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    replaced = (_autocast, _autocast_enabled, _tensor, torch.no_grad)
    try:
        with ExitStack() as stack:
            for (owner, name, _), other in zip(_REAL, replaced, strict=True):
                stack.enter_context(patch.object(owner, name, other))
            for name in ("SGD", "Adam", "AdamW"):
                stack.enter_context(patch.object(torch.optim, name, _unfused(getattr(torch.optim, name))))
            stack.enter_context(patch.object(tracing, "_trace", _traced_on_cpu))
            stack.enter_context(_Factories())
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
