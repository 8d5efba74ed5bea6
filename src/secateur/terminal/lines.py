"""Log lines on the terminal, above progress bars and only from the first process."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path


class OnTerminal(logging.Handler):
    """Writes log lines to the current standard error. While bars are drawn, the lines appear above them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record as one line."""
        with suppress(OSError, ValueError):  # a closed terminal is not an error
            print(self.format(record), file=sys.stderr, flush=True)


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those started by `torchrun`."""
    return os.environ.get("RANK", "0").strip() in {"", "0"}


def quiet_unless_first() -> None:
    """In all processes except the first, suppresses prints and log messages below errors."""
    if not is_first_process():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
        logging.getLogger("secateur").setLevel(logging.ERROR)
