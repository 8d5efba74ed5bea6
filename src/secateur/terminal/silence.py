"""Suppresses console output and telemetry of third-party code."""

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
    """Suppresses all output: prints, log lines, warnings, and output of C++ code."""
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
    """Suppresses standard error at the descriptor level, for C libraries that print there."""
    with _descriptors_closed(2):
        yield


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Disables telemetry of packages imported in this context.

    Two runtimes report usage unless the user opts out. OpenVINO reports its import and every conversion through a
    separate package; here, it finds none and continues without it, as designed. ONNX Runtime (1.29 and later) reports
    its sessions and stores a machine id in the user's cache; it reads an environment variable on import. A value set by
    the user is kept.
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
    """Redirects these file descriptors to the null device."""
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
