"""What the first process of several prints, and the others do not, with --json too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from secateur import cli
from secateur.commands import Command


@dataclass(frozen=True)
class NoOptions:
    """None."""


def works(options: NoOptions) -> dict[str, int]:
    print("a table")
    logging.getLogger("secateur").warning("a remark")
    return {"figure": 1}


@pytest.fixture(autouse=True)
def _logger_as_before() -> Iterator[None]:
    logger, root, stdout = logging.getLogger("secateur"), logging.getLogger(), sys.stdout
    level, handlers = logger.level, list(root.handlers)
    yield
    logger.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    sys.stdout = stdout


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_who_prints(rank: str, json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", rank)
    command = Command("works", "", lambda: NoOptions, works, 1, lambda options: json, False, False)
    cli._call(command, [])
    said = capsys.readouterr()
    if rank == "1":
        assert said.out == said.err == ""
    else:
        assert ("figure" in said.out) == json and "a table" in (said.err if json else said.out)
