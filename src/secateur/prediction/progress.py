"""The bar of a prediction: pictures done, how many a second, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from secateur.prediction.media import Frame
from secateur.prediction.sources import Medium


class _Rate(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} /s" if task.speed else "")


@contextmanager
def bar(media: Sequence[Medium]) -> Iterator[Callable[[Frame | None], None]]:
    """A progress bar on standard error that disappears when done; gives what is told each frame, or None for a medium
    that was passed over."""
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where nobody watches, a bar would leave empty lines in a log.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total: float | None = None if any(medium.live for medium in media) else len(media)
        task = progress.add_task("", total=total)

        def advance(frame: Frame | None) -> None:
            nonlocal total
            if frame is not None and frame.number == 1 and total is not None and frame.total:
                total += frame.total - 1
                progress.update(task, total=total)
            progress.advance(task)

        yield advance
