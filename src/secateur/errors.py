"""User-facing errors, and how values and reasons are shortened in them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHOWN = 60
"""Longest representation of a user's value in a message, in characters."""


class UserError(Exception):
    """Bad input. The message names the file, line or option and what to do.

    The command line prints the message and exits with code 2. In Python it is an ordinary exception.
    """


class StateError(UserError):
    """The saved state of interrupted work is damaged or belongs to other work, so it cannot be resumed."""


@contextmanager
def going_on_from(file: Path | None) -> Iterator[None]:
    """Adds to an error about a saved state the file that holds the state and what to do."""
    try:
        yield
    except StateError as error:
        raise UserError(f"Cannot resume from {file}: {error} Remove the file to start again.") from error


class PartlyDoneError(Exception):
    """The command was completed in part. The command line exits with code 1.

    Attributes:
        summary: the command's summary of the completed part.
    """

    def __init__(self, sentence: str, summary: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.summary = summary


class Interrupted(KeyboardInterrupt):
    """The user stopped a command that can be resumed.

    Attributes:
        line: the command line that resumes it.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


class _Shortened(reprlib.Repr):
    """`repr` with bounded work: only the first few values of nested lists are visited."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict, self.maxset = 3, 6, 6, 4, 6
        self.maxstring = self.maxlong = self.maxother = most

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to format integers of thousands of digits."""
        return super().repr_int(x, level) if x.bit_length() < 1_000 else f"a number of {x.bit_length():,} bits"


def shown(value: object, most: int = SHOWN) -> str:
    """A user's value as text for a message: its `repr`, on one line, shortened to `most` characters."""
    text = " ".join(_Shortened(most).repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def told(reason: object, most: int = 120) -> str:
    """The error text of another program, on one line, shortened to `most` characters."""
    text = " ".join(str(reason)[: 10 * most].split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
