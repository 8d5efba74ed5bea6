"""The commands: one file each, found by itself, its options beside it; here, what a command is. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from secateur.registry import Registry

Summary = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """One word of the command line.

    Attributes:
        name: the word.
        summary: one line for `secateur --help`.
        options: gives the dataclass of its options; called only when the command is.
        run: does the work and gives the summary that --json prints (None for commands without one).
        order: place in `secateur --help`.
        json: whether options ask for the summary alone on standard output.
        continues: the same command line goes on where an interruption was.
        computes: it runs networks, so PyTorch is told how many threads the process was granted.
    """

    name: str
    summary: str
    options: Callable[[], Any]
    run: Callable[[Any], Summary | None]
    order: int
    json: Callable[[Any], bool]
    continues: bool
    computes: bool


COMMANDS: Registry[Command] = Registry("command", "secateur.commands")


def command(
    name: str,
    summary: str,
    options: Callable[[], Any],
    *,
    order: int = 100,
    json: Callable[[Any], bool] = lambda options: options.place.json,
    continues: bool = False,
    computes: bool = True,
) -> Callable[[Callable[[Any], Summary | None]], Callable[[Any], Summary | None]]:
    """Registers a function as a command; `options` gives the dataclass that it takes."""

    def register(run: Callable[[Any], Summary | None]) -> Callable[[Any], Summary | None]:
        COMMANDS.register(name)(Command(name, summary, options, run, order, json, continues, computes))
        return run

    return register
