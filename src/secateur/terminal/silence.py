"""Nothing that foreign tools print or report reaches the terminal, or their makers."""

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
def without_telemetry() -> Iterator[None]:
    """What is imported meanwhile does not report its use to its makers.

    Two runtimes do unless the user has learnt of it and opted out: nothing that a pruning tool should do on its own.
    OpenVINO tells of its import and of every conversion, through a package that it needs to be installed; it finds none
    and goes without, as it is made to. ONNX Runtime (1.29 and later) tells of its sessions and keeps a number of the
    machine in the user's cache; it reads a variable when it is imported. What the user has set that to stays.
    """
    package, variable = "openvino_telemetry", "ORT_DISABLE_TELEMETRY"
    known, said = package in sys.modules, variable in os.environ
    if not known:
        sys.modules[package] = None  # type: ignore[assignment]
    if not said:
        os.environ[variable] = "1"
    try:
        yield
    finally:
        if not known:
            sys.modules.pop(package, None)
        if not said:
            os.environ.pop(variable, None)


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
