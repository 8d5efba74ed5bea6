"""Where commands write: run folders that overwrite nothing, and leave nothing behind when a command fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateur.errors import UserError
from secateur.files import write_json
from secateur.stages.options import Place

Summary = dict[str, Any]


def root_of(place: Place, command: str) -> Path:
    """Folder that holds the runs of a command."""
    return Path(place.project) if place.project else Path("runs") / command


def require(value: str, option: str, example: str) -> str:
    """The value of an option that a command cannot do without."""
    if not value:
        raise UserError(f"Option {option} is missing; give it, for example {option} {example}.")
    return value


def finish(folder: Path, summary: Summary) -> Summary:
    """Writes summary.json and returns it."""
    summary = {**summary, "folder": str(folder)}
    write_json(folder / "summary.json", summary)
    return summary


@contextmanager
def removed_on_failure(folder: Path, unless: str = "") -> Iterator[None]:
    """Removes a fresh run folder when nothing useful came into it: no file of the name `unless`."""
    try:
        yield
    except Exception:
        if not unless or not (folder / unless).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def newest_run(root: Path) -> Path:
    """The run folder under `root` that was started last."""
    runs = sorted(root.glob("*/options.json"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise UserError(f"There is no run to resume under {root}; give its folder: --resume runs/train/exp.")
    return runs[-1].parent
