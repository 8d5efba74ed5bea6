"""Converts the keyword arguments of API functions to settings and checks their types."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch

from secateur.errors import UserError, shown
from secateur.pruning.settings import under_present_options
from secateur.ranges import Between, shortened

_SCALARS = (str, Path, int, float, np.generic, torch.device)


class _MisfitError(Exception):
    """A value does not match the type of its field."""


def settings_of(function: Callable[..., Any], options: dict[str, Any], *kinds: type[Any]) -> list[Any]:
    """Creates one instance of each settings class from the keywords that match its fields.

    NumPy numbers are converted to Python numbers, numbers for a text option to text, and a single value to a list of
    one.

    Args:
        function: the API function, for error messages.
        options: all keywords that are not parameters of the function itself.
        kinds: settings dataclasses.

    Raises:
        TypeError: no class has such a field (similar names are listed), or a value has another type.
        UserError: a number is out of range, or a name is unknown.
    """
    known = [entry.name for kind in kinds for entry in dataclasses.fields(kind)]
    options = under_present_options(options, known)
    refuse_unknown(function, options, known)
    found = []
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        fields = [entry.name for entry in dataclasses.fields(kind) if entry.name in options]
        found.append(kind(**{name: typed(function, name, options[name], hints[name]) for name in fields}))
    return found


def refuse_unknown(function: Callable[..., Any], options: Iterable[str], known: Iterable[str]) -> None:
    """Raises TypeError for the first keyword that is neither known nor a parameter of the function."""
    own = [
        entry.name for entry in inspect.signature(function).parameters.values() if entry.kind is not entry.VAR_KEYWORD
    ]
    names = list(dict.fromkeys([*own, *known]))
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Its options: {', '.join(names)}."
            raise TypeError(f"{title_of(function)} has no option {name!r}. {hint}")


def typed(function: Callable[..., Any], name: str, value: Any, hint: Any) -> Any:
    """Converts a value to the type of an option.

    Raises:
        TypeError: the value has another type.
    """
    try:
        return _fitted(value, hint)
    except _MisfitError:
        kind = type(value).__name__
        raise TypeError(
            f"{title_of(function)}: {name} is {shown(value)} ({kind}); it must be {_words(hint)}."
        ) from None


def number(function: Callable[..., Any], name: str, value: Any, known: Between) -> int:
    """An integer within a range.

    Raises:
        TypeError: the value is not an integer.
        UserError: the value is out of range.
    """
    found: int = typed(function, name, value, int)
    if found not in known:
        raise UserError(f"{title_of(function)}: {name} is {shortened(found)}; it must be {known}.")
    return found


def title_of(function: Callable[..., Any]) -> str:
    """The name of a function in error messages: `secateur.prune`."""
    return f"secateur.{function.__name__}"


def _fitted(value: Any, hint: Any) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.ndim == 0):
        value = value.item()
    origin = get_origin(hint)
    if origin is Annotated:
        return _fitted(value, get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return _one_of(value, get_args(hint))
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            return value
        raise _MisfitError
    if origin is tuple:
        return _several(value, get_args(hint)[0])
    if isinstance(hint, type):
        return _simple(value, hint)
    return value


def _one_of(value: Any, hints: tuple[Any, ...]) -> Any:
    """Converts a value to the first of several types that accepts it, if possible without a conversion."""
    fits = []
    for hint in hints:
        try:
            fits.append(_fitted(value, hint))
        except _MisfitError:
            continue
    if not fits:
        raise _MisfitError
    return next((fit for fit in fits if type(fit) is type(value)), fits[0])


def _several(value: Any, hint: Any) -> tuple[Any, ...]:
    if isinstance(value, _SCALARS):
        return (_fitted(value, hint),)
    if isinstance(value, dict | bytes) or not isinstance(value, Iterable):
        raise _MisfitError
    return tuple(_fitted(part, hint) for part in value)


def _simple(value: Any, kind: type[Any]) -> Any:
    """Converts a value to a plain type. 0 and 1 are accepted as False and True, but not the reverse."""
    if kind is bool and isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, bool) and kind in (int, float, str):
        raise _MisfitError
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int):
        return float(value)
    if kind is str and isinstance(value, int | float | Path | torch.device):
        return str(value)
    if isinstance(value, kind):
        return value
    raise _MisfitError


def _words(hint: Any) -> str:
    """The name of a type in error messages."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin is tuple:
        return f"{_words(parts[0])}, or a list of such values"
    known = {bool: "True or False", int: "an integer", float: "a number", str: "text", types.NoneType: "None"}
    return known.get(hint, f"a {getattr(hint, '__name__', hint)}")
