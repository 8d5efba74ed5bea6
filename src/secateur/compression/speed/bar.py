"""The bar on stderr while something is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Say = Callable[[int], None]


@contextmanager
def timing_bar(title: str, total: int) -> Iterator[Say]:
    """A bar that goes away; it is drawn only when it is told of steps, for a thread of its own would be timed too."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=total)

        def advance(steps: int) -> None:
            progress.advance(task, steps)
            progress.refresh()

        yield advance
