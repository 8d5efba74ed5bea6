"""The installed package `ultralytics`, imported on first use and only here."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from secateur.errors import UserError, told

logger = logging.getLogger("secateur")

PACKAGE = "ultralytics"
LEAST = (8, 4)
"""First version whose heads have the outputs that this family expects."""
LICENCE = "Networks of Ultralytics run in the package ultralytics %s, which is licensed under AGPL-3.0."


def needed(module: str) -> Any:
    """A module of the package, such as "nn.tasks".

    Raises:
        UserError: the package is not installed, too old, or cannot be imported; the message includes the pip command.
    """
    _checked()
    return importlib.import_module(f"{PACKAGE}.{module}")


def installed_version() -> str:
    """Version of the installed package; "" if it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


@cache
def _checked() -> None:
    """Imports the package once, and logs its licence once."""
    known = installed_version()
    try:
        if not known:
            raise ImportError
        # On import, the package binds its log to standard output, which is reserved for results.
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(PACKAGE)
    except ImportError as error:
        why = f", which cannot be imported ({told(error, 80)})" if known else ""
        raise UserError(
            f"Networks of Ultralytics need the package ultralytics{why}. Install it: pip install "
            "'secateur[ultralytics]'."
        ) from error
    if numbers(known) < LEAST:
        least = ".".join(map(str, LEAST))
        raise UserError(
            f"The package ultralytics {known} is too old (at least {least} is needed). Upgrade it: pip install -U "
            "'secateur[ultralytics]'."
        )
    logger.warning(LICENCE, known)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context in which the package logs only errors and shows no progress."""
    log = needed("utils").LOGGER
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def numbers(text: str) -> tuple[int, ...]:
    """ "8.4.190" -> (8, 4, 190); stops at the first part that is not a number."""
    found: list[int] = []
    for part in text.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
