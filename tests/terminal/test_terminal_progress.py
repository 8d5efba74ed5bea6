"""How far long work has come: drawn on a terminal, a line now and then elsewhere, by the first process alone."""

from __future__ import annotations

import logging
import os
import pty
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from secateur.terminal import (
    OnTerminal,
    bar,
    counted,
    counting,
    duration,
    progress,
    quiet_unless_first,
    silenced,
    stage,
)


@contextmanager
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Standard error is one end of a terminal; what came out of the other end follows the block."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    shown: list[str] = []
    with os.fdopen(slave, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield shown
        stream.flush()
        os.set_blocking(master, False)
        shown.append(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(master, 1 << 20).decode()))
    os.close(master)


def test_stages_stand_over_bars_that_stand_over_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_a_terminal(monkeypatch) as shown:
        with stage("prune (flops 0.5)", 2, 4, ["heal", "measure"]), bar("rounds", refresh=0) as outer:
            task = outer.add_task("", total=4)
            outer.advance(task)
            for _ in counted(range(2), "scoring", 2):
                outer.refresh()
        assert not progress._SCREEN.drawing
    last = shown[0].split("[2/4] prune (flops 0.5), then heal, measure")
    assert len(last) > 3
    both = next(part for part in last if "scoring" in part)
    assert re.search(r"rounds +\S+ +1/4 1 s left", both) and re.search(r"scoring +\S+ +0/2", both)
    assert both.index("rounds") < both.index("scoring")


def test_lines_come_above_the_bars_and_nothing_is_left_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("test of lines")
    logger.propagate = False
    logger.addHandler(OnTerminal())
    with on_a_terminal(monkeypatch) as shown, bar("validating", refresh=0) as inner:
        inner.add_task("", total=3)
        logger.warning("a word in between")
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown[0])]
    assert "a word in between" in lines  # no bar in the line


def test_a_bar_is_seen_while_other_tools_are_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_a_terminal(monkeypatch) as shown, counting(range(3), "calibrating", 3) as moving, silenced():
        print("a foreign tool", file=sys.stderr)
        for _ in moving:
            progress._SCREEN.refresh()
    assert "2/3" in shown[0] and "foreign" not in shown[0]


def test_elsewhere_a_line_comes_at_most_every_so_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.Bar, "get_time", lambda self: now[0], raising=False)
    with caplog.at_level(logging.INFO, "secateur"), stage("heal", 1, 2), bar("steps") as shown:
        shown.get_time = lambda: now[0]
        task = shown.add_task("", total=100)
        for _ in range(50):
            now[0] += 2.0
            shown.advance(task)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "[1/2] heal: steps: 15 of 100, 3 min left",
        "[1/2] heal: steps: 30 of 100, 2 min left",
        "[1/2] heal: steps: 45 of 100, 2 min left",
    ]
    assert capsys.readouterr().err == ""


def test_what_was_done_before_took_no_time(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "secateur"), bar("rounds") as shown:
        shown.get_time = lambda: now[0]
        task = shown.add_task("", total=12, completed=10)
        now[0] = 60.0
        shown.update(task, completed=11)
    assert [record.getMessage() for record in caplog.records] == ["rounds: 11 of 12, 60 s left"]


def test_other_processes_say_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    logger = logging.getLogger("secateur")
    level = logger.level
    try:
        with on_a_terminal(monkeypatch) as shown, caplog.at_level(logging.INFO, "secateur"):
            assert len(list(counted(range(3), "scoring", 3))) == 3
            sys.stderr.write("this alone")
        assert not caplog.records and shown[0] == "this alone"
        quiet_unless_first()
        assert Path(sys.stdout.name) == Path(os.devnull) and not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
        sys.stdout.close()
    finally:
        logger.setLevel(level)


def test_lengths_of_time_are_told_in_words() -> None:
    lengths = {0.2: "1 s", 40: "40 s", 89: "89 s", 90: "2 min", 720: "12 min", 7800: "2 h 10 min", 7200: "2 h"}
    assert {seconds: duration(seconds) for seconds in lengths} == lengths
