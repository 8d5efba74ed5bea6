"""What a field of options says besides its default: its range, checked in one place, and whether few users need it."""

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
"""An option that --help leaves to --help-all: `absorb: Advanced[bool] = True`; or a whole group of them."""

_LONGEST = 24  # characters of a value that a sentence repeats


@dataclass(frozen=True)
class Between:
    """The numbers that an option takes: `Annotated[int, Between(1, 100)]`.

    Attributes:
        least, most: both are taken.
        also: one number more, which stands for "by itself" or "none".
    """

    least: float
    most: float
    also: float | None = None

    def __contains__(self, value: float) -> bool:
        # Not a number is in no range.
        return value == self.also or self.least <= value <= self.most

    def __str__(self) -> str:
        other = "" if self.also is None else f" (or {self.also:g})"
        return f"from {_number(self.least)} to {_number(self.most)}{other}"


SHARE = Between(0, 1)
FACTOR = Between(0, 1e6)
COUNT = Between(0, 10_000_000)
"""Of steps, images, channels and the like: more than any machine holds, so that a slip of the keys is told."""
POSITIVE = Between(1, 10_000_000)
PIXELS = Between(1, 8192, also=0)
"""Sides of images: beyond it a single image's maps fill the memory of most machines."""
BATCH = Between(1, 4096)
EPOCHS = Between(1, 1_000_000)
ROUNDS = Between(1, 100_000)
THREADS = Between(0, 1024)
WORKERS = Between(0, 256)
SEED = Between(0, 2**32 - 1)


def check_ranges(settings: Any) -> None:
    """Checks every number of a dataclass that has a range and every word that has choices, and those of its groups.

    Raises:
        UserError: one is outside; it names the option and what it takes.
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
        # A word in place of a number (auto) is checked where words are; this one was meant as a number.
        if _is_number(value):
            raise UserError(f"{_flag(name)} is the text {value!r}; YAML reads 1e-4 as text: write 1.0e-4.")
        return
    if value not in known:
        raise UserError(f"{_flag(name)} is {shortened(value)}; it must be {known}.")


def shortened(value: Any) -> str:
    """A value as a sentence repeats it: not more than a few words of it."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return f"a number of over {_LONGEST} digits"
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
    """The ranges of a dataclass's own fields, by their names."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for entry in dataclasses.fields(kind):
        known = [extra for extra in getattr(hints.get(entry.name), "__metadata__", ()) if isinstance(extra, Between)]
        if known:
            found[entry.name] = known[-1]
    return found


@functools.cache
def _choices(kind: type[Any]) -> dict[str, tuple[str, ...]]:
    """The words that a dataclass's own fields take, by their names: those of their `Literal`."""
    hints = typing.get_type_hints(kind)
    literal = [entry.name for entry in dataclasses.fields(kind) if typing.get_origin(hints[entry.name]) is Literal]
    return {name: typing.get_args(hints[name]) for name in literal}
