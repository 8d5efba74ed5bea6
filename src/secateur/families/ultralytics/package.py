"""The user's own package `ultralytics`, imported when it is first needed and nowhere else."""

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
"""First version whose heads answer as this family reads them."""
LICENCE = "Networks of Ultralytics run in the package ultralytics %s, which is licensed under AGPL-3.0."


def needed(module: str) -> Any:
    """A module of the package, such as "nn.tasks".

    Raises:
        UserError: the package is not installed, too old, or cannot be imported; the sentence has the pip line.
    """
    _checked()
    return importlib.import_module(f"{PACKAGE}.{module}")


def installed_version() -> str:
    """The version of the installed package; "" where there is none."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


@cache
def _checked() -> None:
    """Imports the package once, and says once whose licence it is under."""
    known = installed_version()
    try:
        if not known:
            raise ImportError
        # Its log lines go where standard output is when it is imported: that is for results.
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(PACKAGE)
    except ImportError as error:
        why = f", which cannot be imported ({told(error, 80)})" if known else ""
        raise UserError(
            f"Networks of Ultralytics need the package ultralytics{why}: pip install 'secateur[ultralytics]'."
        ) from error
    if numbers(known) < LEAST:
        least = ".".join(map(str, LEAST))
        raise UserError(
            f"The package ultralytics {known} is too old (at least {least}): pip install -U 'secateur[ultralytics]'."
        )
    logger.warning(LICENCE, known)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The package logs only errors and shows no progress of its own."""
    log = needed("utils").LOGGER
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def numbers(text: str) -> tuple[int, ...]:
    """ "8.4.190" -> (8, 4, 190); what is no number ends it."""
    found: list[int] = []
    for part in text.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
