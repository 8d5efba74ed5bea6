"""What is shown on the terminal while work is going on."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn


def bar(
    title: str = "{task.description}",
    *columns: ProgressColumn,
    console: Console | None = None,
    shown: bool = True,
    refresh: float = 10,
) -> Progress:
    """A progress bar on standard error that disappears when it is done.

    Args:
        title: what stands before it.
        columns: what stands behind it; by default how many of how many are done, and the time left.
        console: where it is drawn, in place of standard error.
        shown: whether to draw it at all. Where nobody watches it never is: it would leave empty lines in a log.
        refresh: times a second that a thread draws it; 0 draws it when it is told to.
    """
    console = console or Console(stderr=True)
    columns = columns or (MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(
        TextColumn(title), BarColumn(), *columns, console=console, transient=True, auto_refresh=refresh > 0,
        refresh_per_second=refresh or 10, disable=not (shown and console.is_terminal),
    )  # fmt: skip
