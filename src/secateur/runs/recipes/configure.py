"""Assigns named values to the settings of a step and its groups, and checks their types."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from secateur.errors import UserError, shown
from secateur.pruning.settings import under_present_options
from secateur.ranges import check_ranges
from secateur.sparsity.settings import REMOVED
from secateur.steps.step import Step

_LARGEST = 2.0**53
"""Above this, integers are not exact as floats; no setting comes near it."""

T = TypeVar("T")
StepType = TypeVar("StepType", bound=Step)


def configured(kind: type[StepType], settings: Mapping[str, Any], where: str) -> StepType:
    """A step with the given settings. Names are those of its fields and of the fields of its groups.

    Raises:
        UserError: a setting is unknown, or a value has another type; the message names the location.
    """
    known = setting_names(kind())
    settings = _under_present_names(_without_removed(settings, where), known, where)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=6, cutoff=0)
        raise UserError(
            f"{where}: unknown setting {shown(unknown[0])}. Known settings are {', '.join(near)}, ...; see "
            "docs/options.md."
        )
    try:
        step = _replaced(kind(), settings, where)
        check_ranges(step)
        return step
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from None


def _without_removed(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Drops settings of earlier versions that were removed, if they have their former default.

    Raises:
        UserError: a removed setting has another value.
    """
    for name, (default, answer) in REMOVED.items():
        if settings.get(name, default) != default:
            raise UserError(f"{where}: {name} was removed: {answer}.")
    return {name: value for name, value in settings.items() if name not in REMOVED}


def _under_present_names(settings: Mapping[str, Any], known: Collection[str], where: str) -> dict[str, Any]:
    try:
        return under_present_options(settings, known)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def setting_names(step: Any) -> list[str]:
    """Names of all settings of a step and its groups. A step's own name hides that of a group."""
    own = [entry.name for entry in dataclasses.fields(step) if not _is_group(getattr(step, entry.name))]
    groups = [getattr(step, entry.name) for entry in dataclasses.fields(step)]
    return list(dict.fromkeys(own + [name for group in groups if _is_group(group) for name in setting_names(group)]))


def _is_group(value: Any) -> bool:
    return dataclasses.is_dataclass(value)


def _replaced(base: T, settings: Mapping[str, Any], where: str) -> T:
    """`base` with the given settings replaced, in its own fields or in its groups."""
    changes: dict[str, Any] = {}
    fields = {entry.name: getattr(base, entry.name) for entry in dataclasses.fields(base)}  # type: ignore[arg-type]
    own = {name for name, value in fields.items() if not _is_group(value)}
    for name, value in fields.items():
        if name in own and name in settings:
            changes[name] = _typed(value, settings[name], f"{where}, {name}")
        elif name not in own:
            inner = {key: item for key, item in settings.items() if key not in own and key in setting_names(value)}
            changes |= {name: _replaced(value, inner, where)} if inner else {}
    return dataclasses.replace(base, **changes) if changes else base  # type: ignore[type-var]


def _typed(default: Any, value: Any, where: str) -> Any:
    """Converts a value to the type of its field: YAML has no tuples, and a budget may be written as a number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not abs(value) < _LARGEST:
        _wrong(where, value, "a number that is exact as a float")
    if isinstance(default, tuple):
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        inner = default[0] if default else ""
        return tuple(_typed(inner, entry, where) for entry in values)
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = number and not isinstance(value, float), "an integer"
    elif isinstance(default, float) or default is None:
        fits, wanted = number or (default is None and value is None), "a number (YAML reads 1e-4 as text: write 1.0e-4)"
    elif isinstance(default, str):
        return str(value) if number or isinstance(value, str) else _wrong(where, value, "a word")
    else:
        return value
    return value if fits else _wrong(where, value, wanted)


def _wrong(where: str, value: Any, wanted: str) -> Any:
    raise UserError(f"{where} is {shown(value)}; it must be {wanted}.")
