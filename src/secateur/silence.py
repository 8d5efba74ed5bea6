"""Keeps foreign tools from printing: what matters of it comes as an exception."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing reaches the terminal while this lasts: no print, log line or warning, nor what C++ code writes."""
    disabled = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, disabled)
        stack.enter_context(_descriptors_closed(1, 2))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


@contextlib.contextmanager
def stderr_silenced() -> Iterator[None]:
    """Nothing reaches standard error while this lasts, past Python either: for libraries in C that complain there."""
    with _descriptors_closed(2):
        yield


@contextlib.contextmanager
def _descriptors_closed(*numbers: int) -> Iterator[None]:
    """Sends what is written to these descriptors, past Python, to nowhere."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    kept = {}
    for number in numbers:
        with contextlib.suppress(OSError):  # a program without a terminal may have neither
            kept[number] = os.dup(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
