"""Metadata of option fields: allowed ranges, checked in one place, and a marker for advanced options."""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from secateur.errors import UserError, shown

T = TypeVar("T")

ADVANCED: Final = object()
Advanced = Annotated[T, ADVANCED]
"""Marks an option, or a group of options, that only --help-all shows: `absorb: Advanced[bool] = True`."""

_LONGEST = 24  # longest value that an error message repeats, in characters


@dataclass(frozen=True)
class Between:
    """The allowed values of an option: `Annotated[int, Between(1, 100)]`.

    Attributes:
        least, most: bounds, both inclusive.
        also: one additional value with a special meaning, such as "automatic" or "none".
    """

    least: float
    most: float
    also: float | None = None

    def __contains__(self, value: float) -> bool:
        # NaN is outside every range.
        return value == self.also or self.least <= value <= self.most

    def __str__(self) -> str:
        other = "" if self.also is None else f" (or {self.also:g})"
        return f"from {_number(self.least)} to {_number(self.most)}{other}"


SHARE = Between(0, 1)
FACTOR = Between(0, 1e6)
COUNT = Between(0, 10_000_000)
"""Range for numbers of steps, images or channels. The bound is far above real values and catches typing errors."""
POSITIVE = Between(1, 10_000_000)
PIXELS = Between(1, 8192, also=0)
"""Range for image sides. Above it, the feature maps of a single image exceed the memory of most machines."""
BATCH = Between(1, 4096)
EPOCHS = Between(1, 1_000_000)
ROUNDS = Between(1, 100_000)
THREADS = Between(0, 1024)
WORKERS = Between(0, 256)
SEED = Between(0, 2**32 - 1)


def check_ranges(settings: Any) -> None:
    """Checks every numeric field of a dataclass against its range and every word against its choices, including nested
    groups.

    Raises:
        UserError: a value is not allowed; the message names the option and its allowed values.
    """
    kind: Any = type(settings)
    for name, words in _choices(kind).items():
        value = getattr(settings, name)
        if value not in words:
            raise UserError(f"{_flag(name)} is {shown(value)}; choose one of {', '.join(words)}.")
    for name, known in _ranges(kind).items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            _check(name, number, known)
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_ranges(value)


def _check(name: str, value: Any, known: Between) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        # A word in place of a number, such as auto, is checked elsewhere. This word was meant as a number.
        if _is_number(value):
            raise UserError(f"{_flag(name)} is the text {value!r}. YAML reads 1e-4 as text; write 1.0e-4.")
        return
    if value not in known:
        raise UserError(f"{_flag(name)} is {shortened(value)}; it must be {known}.")


def shortened(value: Any) -> str:
    """A value for an error message, shortened to a few characters."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return f"a number with more than {_LONGEST} digits"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"


@functools.cache
def _ranges(kind: type[Any]) -> dict[str, Between]:
    """The ranges of a dataclass's own fields by name."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for entry in dataclasses.fields(kind):
        known = [extra for extra in getattr(hints.get(entry.name), "__metadata__", ()) if isinstance(extra, Between)]
        if known:
            found[entry.name] = known[-1]
    return found


@functools.cache
def _choices(kind: type[Any]) -> dict[str, tuple[str, ...]]:
    """The choices of a dataclass's own fields by name, from their `Literal` types."""
    hints = typing.get_type_hints(kind)
    literal = [entry.name for entry in dataclasses.fields(kind) if typing.get_origin(hints[entry.name]) is Literal]
    return {name: typing.get_args(hints[name]) for name in literal}
