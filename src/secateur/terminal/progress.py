"""Progress of long work: bars with the remaining time on a terminal, otherwise occasional log lines.

All bars of the process share one display. A nested bar is drawn below the outer one, and stages (`stage`) are named
above the bars. If standard error is not a terminal, nothing is drawn, and long work logs its progress at most once in
`EVERY` seconds. Of several processes, only the first one reports.
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
"""Advances a bar by a number of steps."""
Item = TypeVar("Item")
EVERY = 30.0
"""Minimum seconds between two log lines of a bar that is not drawn."""
_REST = 3
"""Number of upcoming stages that are named."""


@dataclass(frozen=True)
class EnteredStage:
    """A stage of some work: its name, its number, the number of stages, and the names of the following ones."""

    name: str
    number: int
    count: int
    rest: tuple[str, ...] = ()

    def short(self) -> str:
        """The prefix of a bar's line: "[2/5] prune"."""
        return f"[{self.number}/{self.count}] {self.name}"

    def line(self) -> str:
        """The stage with the following ones: "[2/5] prune (flops 0.5), then heal, measure"."""
        named = [*self.rest[:_REST], *(["..."] if len(self.rest) > _REST else [])]
        return self.short() + (f", then {', '.join(named)}" if named else "")


class _Screen:
    """The display that all bars share, from the first bar that opens to the last one that closes."""

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
        """Draws a bar below the existing ones."""
        with self._lock:
            self._bars.append(drawn)
            if self._live is None:
                # A separate descriptor, because the display stays active while standard error is closed to third-party
                # code.
                file = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding or "utf-8")
                self._live = Live(
                    get_renderable=self._content, console=Console(file=file), transient=True,
                    auto_refresh=refresh > 0, refresh_per_second=refresh or 10, redirect_stdout=_isatty(sys.stdout),
                )  # fmt: skip
                self._live.start()
            self._live.refresh()

    def hide(self, drawn: Bar) -> None:
        """Removes a bar. Removing the last one closes the display."""
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
        """Redraws the display."""
        with self._lock:
            if self._live is not None:
                self._live.refresh()

    def _content(self) -> Group:
        titles = [Text(" " * depth + entry.line(), style="bold") for depth, entry in enumerate(self.stages)]
        return Group(*titles, *self._bars)


_SCREEN = _Screen()


class _Left(ProgressColumn):
    """The remaining time, estimated from the pace since the start of the work."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """ "2 min left"; empty if no estimate is possible yet."""
        return Text(_time_left(task))


class Bar(Progress):
    """The progress bars of some work, drawn in the shared display or reported as log lines.

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
        """Adds one bar. Steps completed before its start do not count for the pace."""
        return super().add_task(description, start, total, completed, visible, initial=completed, **fields)

    def start(self) -> None:
        """Shows the bar."""
        if self.drawn:
            _SCREEN.show(self, self._rate)

    def stop(self) -> None:
        """Removes the bar."""
        if self.drawn:
            _SCREEN.hide(self)

    def refresh(self) -> None:
        """Redraws the bar."""
        if self.drawn:
            _SCREEN.refresh()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advances the bar by a number of steps."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Updates the bar's values."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def _tell(self, number: TaskID) -> None:
        """Logs a line if nothing is drawn and the last line is old enough."""
        now = time.monotonic()
        if self._told and now - self._last >= EVERY:
            self._last = now
            LOG.info("%s", self._line(self._tasks[number]))

    def _line(self, task: Task) -> str:
        """The log line: "[2/5] prune (flops 0.5): rounds: 12 of 30, 2 min left"."""
        words = [*(entry.short() for entry in _SCREEN.stages), self.title.format(task=task).strip()]
        count = f"{task.completed:,.0f}" + (f" of {task.total:,.0f}" if task.total else "")
        return f"{': '.join(filter(None, words))}: {', '.join(filter(None, (count, _time_left(task))))}"


def _time_left(task: Task) -> str:
    done, elapsed = task.completed - task.fields.get("initial", 0), task.elapsed
    if not task.total or not elapsed or done <= 0 or task.completed >= task.total:
        return ""
    return f"{duration(elapsed * (task.total - task.completed) / done)} left"


def _isatty(stream: Any) -> bool:
    """Whether a stream is a terminal in which the cursor can be moved."""
    try:
        return bool(stream.isatty()) and stream.fileno() >= 0 and os.environ.get("TERM", "") != "dumb"
    except (AttributeError, OSError, ValueError):  # not a stream, a closed one, or without a file descriptor
        return False


def bar(title: str = "{task.description}", *columns: ProgressColumn, shown: bool = True, refresh: float = 10) -> Bar:
    """A progress bar on standard error that disappears at the end.

    Args:
        title: text before the bar.
        columns: columns after the bar, before the remaining time; the default is completed and total steps.
        shown: whether to report anything.
        refresh: redraws per second by a background thread if no other bar is drawn yet; 0 redraws only on request.
    """
    return Bar(title, *(columns or (MofNCompleteColumn(),)), _Left(), shown=shown, refresh=refresh)


@contextlib.contextmanager
def timing_bar(title: str, total: int) -> Iterator[Advance]:
    """A bar for timing measurements. It is redrawn only when it advances, because a background thread would affect the
    times.
    """
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
    """Yields the same items, with a bar that appears at once and advances with each item.

    Args:
        items: the items.
        title: text before the bar.
        total: total number of steps; None if unknown.
        size: number of steps of an item.
        shown: whether to report anything.
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
    """Marks the enclosed work as stage `number` of `count` in bars and log lines.

    Args:
        name: name of the stage.
        number: number of the stage, from 1.
        count: number of stages.
        rest: names of the following stages.
    """
    entered = EnteredStage(name, number, count, tuple(rest))
    _SCREEN.stages.append(entered)
    try:
        yield entered
    finally:
        _SCREEN.stages.remove(entered)


def duration(seconds: float) -> str:
    """A duration in one or two units: "40 s", "12 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
