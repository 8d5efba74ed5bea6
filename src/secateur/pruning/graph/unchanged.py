"""Undoes the changes that the forward pass makes to a network while it is traced."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_FOREIGN = frozenset({*sys.stdlib_module_names, "torch", "numpy"} - {"types"})  # "types" has SimpleNamespace


@contextmanager
def unchanged(network: nn.Module) -> Iterator[Callable[[], None]]:
    """Undoes every change to a network on exit, also after an exception; yields a function that undoes them earlier.

    Attributes, registered tensors, hooks and modes of all modules are restored, and so are the contents of lists,
    dicts, sets, deques, arrays and plain objects among the attributes, at any depth. These are restored in place, so
    that other references see the same object. Values of plain tensor attributes and of buffers are restored bit for
    bit; values of parameters are not checked.
    """
    undo = _recorded(network)

    def restore() -> None:
        for step in undo:
            step()

    try:
        yield restore
    finally:
        restore()


def _recorded(network: nn.Module) -> list[Callable[[], None]]:
    """Functions that restore everything reachable from a network, containers first."""
    parameters = {id(parameter) for parameter in network.parameters()}
    containers: list[Callable[[], None]] = []
    values: list[Callable[[], None]] = []
    seen: dict[int, Any] = {}  # keeps the objects: an id is unique only while its object exists
    waiting: list[Any] = [network]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, Tensor):
            values.append(_of_tensor(item, value=id(item) not in parameters))
        elif isinstance(item, np.ndarray):
            values.append(_of_array(item))
        elif isinstance(item, dict):
            containers.append(_of_dict(item))
            waiting += item.values()
        elif isinstance(item, list | set | deque):
            containers.append(_of_collection(item))
            waiting += item
        elif isinstance(item, tuple | frozenset):
            waiting += item
        elif isinstance(item, nn.Module) or _is_plain(item):
            waiting.append(vars(item))
    return containers + values


def _is_plain(item: Any) -> bool:
    """Whether an object is data of the user; objects of libraries (loggers, threads) are not touched."""
    kind = type(item)
    root = kind.__module__.partition(".")[0]
    return not isinstance(item, type) and root not in _FOREIGN and isinstance(getattr(item, "__dict__", None), dict)


def _of_dict(item: dict[Any, Any]) -> Callable[[], None]:
    keys, values = tuple(item), tuple(item.values())  # two objects for the garbage collector instead of one per entry

    def restore() -> None:
        if len(item) != len(keys) or not (all(map(is_, item, keys)) and all(map(is_, item.values(), values))):
            item.clear()
            item.update(zip(keys, values, strict=True))

    return restore


def _of_collection(item: list[Any] | set[Any] | deque[Any]) -> Callable[[], None]:
    before = tuple(item)

    def restore() -> None:
        if len(item) == len(before) and all(map(is_, item, before)):
            return
        item.clear()
        if isinstance(item, set):
            item.update(before)
        else:
            item.extend(before)

    return restore


def _of_array(item: np.ndarray[Any, Any]) -> Callable[[], None]:
    before = item.copy()

    def restore() -> None:
        if item.dtype != object and item.tobytes() != before.tobytes():
            item[...] = before

    return restore


def _of_tensor(item: Tensor, *, value: bool) -> Callable[[], None]:
    """A function that restores `requires_grad` and, with `value`, the values of a tensor."""
    needs_grad, leaf = item.requires_grad, item.is_leaf
    plain = type(item) in (Tensor, nn.Parameter) and item.layout == torch.strided and not item.is_meta
    before = item.detach().clone() if value and plain else None

    def restore() -> None:
        if before is not None and (item.shape, item.dtype) != (before.shape, before.dtype):
            item.data = before
        elif before is not None and not _same_values(item.detach(), before):
            item.data.copy_(before)  # in place: views of it see the old values too
        if leaf and item.requires_grad != needs_grad:
            item.requires_grad_(needs_grad)

    return restore


def _same_values(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of the same shape and dtype hold the same values; NaN equals NaN."""
    equal = first == second
    if first.is_floating_point() or first.is_complex():
        equal |= (first != first) & (second != second)
    return bool(equal.all())
