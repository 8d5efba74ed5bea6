"""The bar on stderr while something is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from secateur.terminal import bar

Say = Callable[[int], None]


@contextmanager
def timing_bar(title: str, total: int) -> Iterator[Say]:
    """A bar that goes away; it is drawn only when it is told of steps, for a thread of its own would be timed too."""
    with bar(title, refresh=0) as progress:
        task = progress.add_task("", total=total)

        def advance(steps: int) -> None:
            progress.advance(task, steps)
            progress.refresh()

        yield advance
