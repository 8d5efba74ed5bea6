"""Where the rounds of a pruning keep their state, and the bar that shows how many are done."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.errors import going_on_from
from secateur.files import read_json, write_json
from secateur.machine import return_memory
from secateur.pruning.prune import Kept
from secateur.pruning.rounds import State
from secateur.terminal import bar

STATE = "rounds.json"


@contextmanager
def kept_in(folder: Path | None) -> Iterator[Kept]:
    """The state of rounds in `rounds.json` of a folder, from which the same call goes on after a kill.

    Args:
        folder: None keeps nothing.

    Raises:
        StateError: the file is damaged, or of another network.
    """
    file = folder / STATE if folder is not None else None
    found = read_json(file) if file is not None and file.is_file() else None
    with bar("rounds") as progress:
        task = progress.add_task("", total=None)

        def save(state: State, count: int) -> None:
            gc.collect()  # networks and their hooks hold each other
            return_memory()
            if file is not None:
                write_json(file, state.to_dict())
            progress.update(task, total=count, completed=state.round, visible=True)

        with going_on_from(file):
            yield Kept(State.from_dict(found) if found is not None else None, save)
