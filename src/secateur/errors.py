"""The one exception that reports a mistake in the user's input."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, told in one sentence that names the file, line or option and says what to do.

    The command line prints the sentence and exits with code 2; from Python it is an ordinary exception.
    """
