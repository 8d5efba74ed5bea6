"""Run folders: locations and final files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.errors import UserError
from secateur.files import fresh_run, usable_path, write_json
from secateur.ranges import shortened

Summary = dict[str, Any]


@dataclass(frozen=True)
class OutputOptions:
    """Output location of a command."""

    project: str = ""
    """Parent folder of runs (default: runs/COMMAND)."""
    name: str = "exp"
    """Name of the run folder. A number is added (exp, exp2, exp3, ...), so nothing is overwritten."""
    json: bool = False
    """Print only the summary, as JSON, on standard output."""

    def root(self, command: str) -> Path:
        """Parent folder of the runs of a command.

        Raises:
            UserError: the name points outside this folder.
        """
        if Path(self.name).name != self.name or self.name in {"", ".", ".."}:
            raise UserError(
                f"--name {shortened(self.name)} is not a plain folder name. Put the rest of the path into --project."
            )
        usable_path(self.name)
        return usable_path(self.project, expand=True) if self.project else Path("runs") / command

    def new(self, command: str, worth_keeping: Callable[[], bool] = lambda: False) -> AbstractContextManager[Path]:
        """A new run folder, which is removed on failure unless it is worth keeping."""
        return fresh_run(self.root(command), self.name, worth_keeping)


def require(value: str, option: str, example: str) -> str:
    """The value of a required option.

    Raises:
        UserError: the value is empty.
    """
    if not value:
        raise UserError(f"Option {option} is missing. Give it, for example {option} {example}.")
    return value


def finish(folder: Path, summary: Summary) -> Summary:
    """Writes summary.json and returns it."""
    summary = {**summary, "folder": str(folder)}
    write_json(folder / "summary.json", summary)
    return summary


def newest_run(root: Path, marker: str = "options.json") -> Path:
    """The most recently started run folder under `root`.

    Raises:
        UserError: there is none.
    """
    runs = sorted(root.glob(f"*/{marker}"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise UserError(f"There is no run to resume under {root}. Give its folder: --resume {root}/exp.")
    return runs[-1].parent
