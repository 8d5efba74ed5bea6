"""The command registry. Each command is one file of this package, which also holds its options. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from secateur.registry import Registry

Summary = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A subcommand of the command line.

    Attributes:
        name: subcommand name.
        summary: one line for `secateur --help`.
        options: returns the dataclass of the options; called only when the command is used.
        run: runs the command and returns the summary that --json prints, or None for commands without a summary.
        order: position in `secateur --help`.
        json: whether the options ask for only the summary on standard output.
        continues: whether the same command line resumes after an interruption.
        computes: whether the command runs networks. If so, PyTorch's thread count is set to the CPUs granted to the
            process.
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
    """Registers a function as a command. `options` returns the dataclass of options that the function takes."""

    def register(run: Callable[[Any], Summary | None]) -> Callable[[Any], Summary | None]:
        COMMANDS.register(name)(Command(name, summary, options, run, order, json, continues, computes))
        return run

    return register
