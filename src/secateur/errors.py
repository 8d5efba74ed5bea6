"""What the user is told: bad input in one sentence, what was left out, and how an interrupted command goes on."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHOWN = 60
"""Characters that a sentence gives a value of the user's."""


class UserError(Exception):
    """Bad input, told in one sentence that names the file, line or option and says what to do.

    The command line prints the sentence and exits with code 2; from Python it is an ordinary exception.
    """


class StateError(UserError):
    """What an interrupted piece of work has kept is damaged, or is not of this work: nothing can go on from it."""


@contextmanager
def going_on_from(file: Path | None) -> Iterator[None]:
    """What is found wrong with a state meanwhile is told with the file that keeps it, and what to do."""
    try:
        yield
    except StateError as error:
        raise UserError(f"Cannot continue from {file}: {error} Remove it to start again.") from error


class PartlyDoneError(Exception):
    """A command did what it could and left something out; the command line exits with code 1.

    Attributes:
        summary: of what is done, as the command would have given it.
    """

    def __init__(self, sentence: str, summary: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.summary = summary


class Interrupted(KeyboardInterrupt):
    """The user stopped a command that can go on.

    Attributes:
        line: what to type to go on.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


class _Shortened(reprlib.Repr):
    """`repr` of which the work is bounded too: of lists that hold lists only the first few values are looked at."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict, self.maxset = 3, 6, 6, 4, 6
        self.maxstring = self.maxlong = self.maxother = most

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write out whole numbers of thousands of digits."""
        return super().repr_int(x, level) if x.bit_length() < 1_000 else f"a number of {x.bit_length():,} bits"


def shown(value: object, most: int = SHOWN) -> str:
    """A value of the user's as a sentence shows it: as in Python, on one line, shortened to `most` characters."""
    text = " ".join(_Shortened(most).repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def told(reason: object, most: int = 120) -> str:
    """What another program says of an error: on one line, shortened to `most` characters."""
    text = " ".join(str(reason)[: 10 * most].split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
