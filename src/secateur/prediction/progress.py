"""The progress bar of a prediction: completed images, images per second, remaining time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import MofNCompleteColumn, ProgressColumn, Task
from rich.text import Text

from secateur import terminal
from secateur.prediction.media import Frame
from secateur.prediction.sources import Medium


class _Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} /s" if task.speed else "")


@contextmanager
def bar(media: Sequence[Medium]) -> Iterator[Callable[[Frame | None], None]]:
    """A progress bar on standard error that disappears at the end. Yields a function to call with each frame, or with
    None for a skipped medium.
    """
    with terminal.bar("predicting", MofNCompleteColumn(), _Rate()) as progress:
        total: float | None = None if any(medium.live for medium in media) else len(media)
        task = progress.add_task("", total=total)

        def advance(frame: Frame | None) -> None:
            nonlocal total
            if frame is not None and frame.number == 1 and total is not None and frame.total:
                total += frame.total - 1
                progress.update(task, total=total)
            progress.advance(task)

        yield advance
