"""The words that a shell can complete: commands, subcommands and options, from the dataclasses of the options."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional, Suppress

from secateur.commands import COMMANDS
from secateur.commands.help import group_of, has, hinted


@dataclass(frozen=True)
class Completed:
    """A command with what can follow it.

    Attributes:
        name: the command.
        summary: its line in `secateur --help`.
        words: its subcommands, then its options and theirs, each once.
    """

    name: str
    summary: str
    words: tuple[str, ...]


def completed() -> list[Completed]:
    """All commands, in the order of `secateur --help`."""
    commands = sorted(COMMANDS.values(), key=lambda entry: entry.order)
    return [
        Completed(entry.name, entry.summary, tuple(dict.fromkeys([*_words(entry.options()), "--help", "--help-all"])))
        for entry in commands
    ]


def _words(kind: type[Any]) -> Iterator[str]:
    later: list[str] = []
    for entry, hint in hinted(kind):
        if has(hint, Suppress) or has(hint, Positional):
            continue
        group, subcommands = group_of(entry), dict(_subcommands(hint))
        yield from subcommands
        if group is not None:
            later += _words(type(group))
        elif subcommands:
            later += [word for inner in subcommands.values() for word in _words(inner)]
        else:
            later += _flags(entry.name, hint)
    yield from later


def _flags(name: str, hint: Any) -> list[str]:
    """The aliases of an option, its name, and for a switch the name that turns it off."""
    flag = f"--{name.replace('_', '-')}"
    aliases = [alias for extra in getattr(hint, "__metadata__", ()) for alias in getattr(extra, "aliases", None) or ()]
    plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    return [*aliases, flag, *([f"--no-{flag[2:]}"] if plain is bool else [])]


def _subcommands(hint: Any) -> Iterator[tuple[str, type[Any]]]:
    """The dataclasses of a field with subcommands, by their names."""
    for argument in typing.get_args(hint):
        extras: tuple[Any, ...] = getattr(argument, "__metadata__", ())
        named = [extra.name for extra in extras if type(extra).__name__ == "_SubcommandConfig"]
        inner = typing.get_args(argument)
        if named and named[0]:
            yield named[0], inner[0]
        elif inner:
            yield from _subcommands(argument)
