"""Options that stand beside --resume: an interrupted run goes on with its own, so others are refused, not dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from secateur.errors import UserError

HARMLESS = ("resume", "project", "name", "json", "data")
"""What says where things are; that the data set is the same one is found out by its content."""


def refuse_beside_resume(options: Any, defaults: Any) -> None:
    """Refuses options that were given together with --resume.

    Args:
        options: of a training command.
        defaults: the same with nothing given.

    Raises:
        UserError: naming them.
    """
    given = [name for name in _changed(options, defaults) if name not in HARMLESS]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(
            f"--resume continues with the options of the interrupted run, so {flags} cannot be given with it: leave "
            "that out, or start a new run without --resume."
        )


def _changed(options: Any, defaults: Any) -> Iterator[str]:
    for entry in dataclasses.fields(options):
        value, default = getattr(options, entry.name), getattr(defaults, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _changed(value, default)
        elif value != default:
            yield entry.name
