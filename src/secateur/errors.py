"""What the user is told: bad input in one sentence, and how an interrupted command goes on."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, told in one sentence that names the file, line or option and says what to do.

    The command line prints the sentence and exits with code 2; from Python it is an ordinary exception.
    """


class Interrupted(KeyboardInterrupt):
    """The user stopped a command that can go on.

    Attributes:
        line: what to type to go on.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line
