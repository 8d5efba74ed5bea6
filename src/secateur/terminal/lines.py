"""Lines of text on the terminal: above the bars while some are drawn, and from the first process only."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path


class OnTerminal(logging.Handler):
    """Writes log lines to standard error as it is now: while bars are drawn, what is written there moves above them."""

    def emit(self, record: logging.LogRecord) -> None:
        """One record as one line."""
        with suppress(OSError, ValueError):  # a closed terminal stops nothing
            print(self.format(record), file=sys.stderr, flush=True)


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that `torchrun` started."""
    return os.environ.get("RANK", "0").strip() in {"", "0"}


def quiet_unless_first() -> None:
    """In all processes but the first: nothing is printed and nothing below an error is logged; errors are shown."""
    if not is_first_process():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
        logging.getLogger("secateur").setLevel(logging.ERROR)
