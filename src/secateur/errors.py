"""What the user is told: bad input in one sentence, what was left out, and how an interrupted command goes on."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Bad input, told in one sentence that names the file, line or option and says what to do.

    The command line prints the sentence and exits with code 2; from Python it is an ordinary exception.
    """


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
