"""How far long work has come: on a terminal a stage over its bars with the time left, elsewhere a line now and then.

All bars of the process are drawn in one place. A bar that is opened inside another one is drawn under it, and the
stages (`stage`) are named above them. Where standard error is no terminal, nothing is drawn: work that takes long says
at most once in `EVERY` seconds how far it is, as a log line. Of several processes the first one speaks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from secateur.terminal.lines import is_first_process

LOG = logging.getLogger("secateur")
Advance = Callable[[int], None]
"""Moves a bar on by so many steps."""
Item = TypeVar("Item")
EVERY = 30.0
"""Seconds between two lines of a bar that is not drawn."""
_REST = 3
"""Stages to come that are named."""


@dataclass(frozen=True)
class EnteredStage:
    """A part of a piece of work: its name, its number of how many, and the names of those to come."""

    name: str
    number: int
    count: int
    rest: tuple[str, ...] = ()

    def short(self) -> str:
        """As a line of a bar begins: "[2/5] prune"."""
        return f"[{self.number}/{self.count}] {self.name}"

    def line(self) -> str:
        """With what comes after it: "[2/5] prune (flops 0.5), then heal, measure"."""
        named = [*self.rest[:_REST], *(["..."] if len(self.rest) > _REST else [])]
        return self.short() + (f", then {', '.join(named)}" if named else "")


class _Screen:
    """The one place of the terminal in which bars are drawn, from the first that is opened to the last that ends."""

    def __init__(self) -> None:
        self.stages: list[EnteredStage] = []
        self._bars: list[Bar] = []
        self._live: Live | None = None
        self._lock = threading.RLock()

    @property
    def drawing(self) -> bool:
        """Whether a bar is drawn."""
        return self._live is not None

    def show(self, drawn: Bar, refresh: float) -> None:
        """Draws a bar under those that are there."""
        with self._lock:
            self._bars.append(drawn)
            if self._live is None:
                # Its own descriptor: it is drawn on while that of standard error is closed to foreign tools.
                file = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding or "utf-8")
                self._live = Live(
                    get_renderable=self._content, console=Console(file=file), transient=True,
                    auto_refresh=refresh > 0, refresh_per_second=refresh or 10, redirect_stdout=_isatty(sys.stdout),
                )  # fmt: skip
                self._live.start()
            self._live.refresh()

    def hide(self, drawn: Bar) -> None:
        """Takes a bar away; with the last one the place is free again."""
        with self._lock:
            if drawn not in self._bars:
                return
            self._bars.remove(drawn)
            live = self._live
            if live is None or self._bars:
                return
            self._live = None
            live.stop()
            with contextlib.suppress(OSError):
                live.console.file.close()

    def refresh(self) -> None:
        """Draws what is there anew."""
        with self._lock:
            if self._live is not None:
                self._live.refresh()

    def _content(self) -> Group:
        titles = [Text(" " * depth + entry.line(), style="bold") for depth, entry in enumerate(self.stages)]
        return Group(*titles, *self._bars)


_SCREEN = _Screen()


class _Left(ProgressColumn):
    """The time left, at the pace from the beginning of the work on."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """ "2 min left"; nothing where that cannot be known yet."""
        return Text(_time_left(task))


class Bar(Progress):
    """The bars of one piece of work, drawn in the common place, or told as lines.

    Attributes:
        drawn: whether it is drawn.
    """

    def __init__(self, title: str, *columns: ProgressColumn, shown: bool, refresh: float) -> None:
        shown = shown and is_first_process()
        self.drawn, self.title = shown and (_SCREEN.drawing or _isatty(sys.stderr)), title
        self._told, self._rate, self._last = shown and not self.drawn, refresh, time.monotonic()
        super().__init__(TextColumn(title), BarColumn(), *columns, auto_refresh=False, disable=not self.drawn)

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = None,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """One bar; what is done when it begins took no time."""
        return super().add_task(description, start, total, completed, visible, initial=completed, **fields)

    def start(self) -> None:
        """Appears."""
        if self.drawn:
            _SCREEN.show(self, self._rate)

    def stop(self) -> None:
        """Disappears."""
        if self.drawn:
            _SCREEN.hide(self)

    def refresh(self) -> None:
        """Is drawn now."""
        if self.drawn:
            _SCREEN.refresh()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """So many steps are done."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Other figures."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def _tell(self, number: TaskID) -> None:
        """A line, where the last one is long ago and nothing is drawn."""
        now = time.monotonic()
        if self._told and now - self._last >= EVERY:
            self._last = now
            LOG.info("%s", self._line(self._tasks[number]))

    def _line(self, task: Task) -> str:
        """ "[2/5] prune (flops 0.5): rounds: 12 of 30, 2 min left"."""
        words = [*(entry.short() for entry in _SCREEN.stages), self.title.format(task=task).strip()]
        count = f"{task.completed:,.0f}" + (f" of {task.total:,.0f}" if task.total else "")
        return f"{': '.join(filter(None, words))}: {', '.join(filter(None, (count, _time_left(task))))}"


def _time_left(task: Task) -> str:
    done, elapsed = task.completed - task.fields.get("initial", 0), task.elapsed
    if not task.total or not elapsed or done <= 0 or task.completed >= task.total:
        return ""
    return f"{duration(elapsed * (task.total - task.completed) / done)} left"


def _isatty(stream: Any) -> bool:
    """Whether somebody watches a stream, and the cursor can be moved there."""
    try:
        return bool(stream.isatty()) and stream.fileno() >= 0 and os.environ.get("TERM", "") != "dumb"
    except (AttributeError, OSError, ValueError):  # no stream, a closed one, or none of the system's
        return False


def bar(title: str = "{task.description}", *columns: ProgressColumn, shown: bool = True, refresh: float = 10) -> Bar:
    """A progress bar on standard error that disappears when it is done.

    Args:
        title: what stands before it.
        columns: what stands behind it, before the time left; by default how many of how many are done.
        shown: whether to say anything at all.
        refresh: times a second that a thread draws it, where no other bar is drawn yet; 0 draws it when it is told to.
    """
    return Bar(title, *(columns or (MofNCompleteColumn(),)), _Left(), shown=shown, refresh=refresh)


@contextlib.contextmanager
def timing_bar(title: str, total: int) -> Iterator[Advance]:
    """A bar while something is timed, drawn only when it moves on: a thread of its own would be timed too."""
    with bar(title, refresh=0) as progress:
        task = progress.add_task("", total=total)

        def advance(steps: int) -> None:
            progress.advance(task, steps)
            progress.refresh()

        yield advance


@contextlib.contextmanager
def counting(
    items: Iterable[Item], title: str, total: int | None = None, *, size: Callable[[Item], int] = lambda item: 1,
    shown: bool = True,
) -> Iterator[Iterator[Item]]:  # fmt: skip
    """The same items, with a bar that appears at once and moves on with each.

    Args:
        title: what is done.
        total: steps in all; None where that is not known.
        size: steps that an item is.
        shown: whether to say anything at all.
    """
    with bar(title, shown=shown) as progress:
        task = progress.add_task("", total=total)

        def moving() -> Iterator[Item]:
            for item in items:
                yield item
                progress.advance(task, size(item))

        yield moving()


def counted(
    items: Iterable[Item], title: str, total: int | None = None, *, size: Callable[[Item], int] = lambda item: 1,
    shown: bool = True,
) -> Iterator[Item]:  # fmt: skip
    """The same items, with a bar from the first to the last; see `counting`."""
    with counting(items, title, total, size=size, shown=shown) as moving:
        yield from moving


@contextlib.contextmanager
def stage(name: str, number: int, count: int, rest: Sequence[str] = ()) -> Iterator[EnteredStage]:
    """What is done meanwhile is stage `number` of `count`; bars and their lines say so.

    Args:
        rest: names of the stages to come.
    """
    entered = EnteredStage(name, number, count, tuple(rest))
    _SCREEN.stages.append(entered)
    try:
        yield entered
    finally:
        _SCREEN.stages.remove(entered)


def duration(seconds: float) -> str:
    """A length of time in one or two units: "40 s", "12 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
