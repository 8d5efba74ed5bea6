"""What the functions of the API make of their keywords: settings whose values have the types of their fields."""

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
    """A value that is of another type than its field."""


def settings_of(function: Callable[..., Any], options: dict[str, Any], *kinds: type[Any]) -> list[Any]:
    """One instance of each kind of settings, from the keywords that are its fields.

    Numbers of NumPy become Python's, numbers for a text option become text, and one value becomes a list of one.

    Args:
        function: to which the keywords were given, for the errors.
        options: all keywords that are not parameters of its own.
        kinds: dataclasses.

    Raises:
        TypeError: a keyword that no kind has (near names are listed), or a value of another type.
        UserError: a number out of range, or a name that is not known.
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
    """TypeError for the first keyword that is none of the known ones and no parameter of the function."""
    own = [
        entry.name for entry in inspect.signature(function).parameters.values() if entry.kind is not entry.VAR_KEYWORD
    ]
    names = list(dict.fromkeys([*own, *known]))
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
            hint = f"near it are {', '.join(near)}" if near else f"it takes {', '.join(names)}"
            raise TypeError(f"{title_of(function)} has no option {name!r}; {hint}.")


def typed(function: Callable[..., Any], name: str, value: Any, hint: Any) -> Any:
    """A value as an option of that type has it.

    Raises:
        TypeError: it cannot be one.
    """
    try:
        return _fitted(value, hint)
    except _MisfitError:
        kind = type(value).__name__
        raise TypeError(
            f"{title_of(function)}: {name} is {shown(value)} ({kind}); it must be {_words(hint)}."
        ) from None


def number(function: Callable[..., Any], name: str, value: Any, known: Between) -> int:
    """A whole number within a range.

    Raises:
        TypeError: it is no whole number.
        UserError: it is out of the range.
    """
    found: int = typed(function, name, value, int)
    if found not in known:
        raise UserError(f"{title_of(function)}: {name} is {shortened(found)}; it must be {known}.")
    return found


def title_of(function: Callable[..., Any]) -> str:
    """How a function is called in errors: "secateur.prune"."""
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
    """The value as the first of several types that takes it, best without a conversion."""
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
    """A value as one of the plain types; 0 and 1 are taken for False and True, but not the other way round."""
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
    """What a type is called in a sentence."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin is tuple:
        return f"{_words(parts[0])}, or a list of such values"
    known = {bool: "True or False", int: "a whole number", float: "a number", str: "text", types.NoneType: "None"}
    return known.get(hint, f"a {getattr(hint, '__name__', hint)}")
