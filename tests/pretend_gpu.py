"""Tensors that say they are on another device and are computed on the CPU: what mixes devices fails here as on a GPU.

A `GPU` inside `pretended()` makes tensors of a class of their own. They keep their values in a tensor of the CPU, and
every operation on them is checked as CUDA would: all tensors of an operation are on one device, but for copies, indices
and single numbers of the CPU; generators are those of the device; NumPy reads none of them. Their device calls itself
"meta", for which PyTorch asks no driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

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


@contextmanager
def pretended() -> Iterator[torch.device]:
    """A GPU to work on."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    # A parameter that moves is a new one: its old object could not hold values of the other class.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Factories():
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
