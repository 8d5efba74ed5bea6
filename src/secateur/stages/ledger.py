"""What a run has already done, on disk: the same command goes on after the last completed step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from secateur.errors import UserError
from secateur.files import increment_run, read_json, write_json


def fingerprint(settings: Mapping[str, Any], files: tuple[Path, ...] = ()) -> str:
    """A digest of the settings and of the content of the files that a run depends on."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


class Ledger:
    """The steps of one run and their results, kept in `FOLDER/progress.json`.

    A step's result is plain JSON data. A step is recorded only once its files are complete, so a kill at any point
    costs at most the step that was under way (and that step may resume by itself).
    """

    FILE = "progress.json"

    def __init__(self, folder: Path, key: str, steps: dict[str, Any] | None = None, finished: bool = False) -> None:
        self.folder = folder
        self.key = key
        self.steps: dict[str, Any] = dict(steps or {})
        self.finished = finished

    @classmethod
    def open(cls, root: Path, name: str, key: str) -> Ledger:
        """Goes on with the newest unfinished run of the same settings under `root`, or starts a new folder."""
        candidates = sorted(root.glob(f"{name}*/{cls.FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in candidates:
            try:
                state = read_json(file)
            except UserError:
                # A foreign or damaged file is no run of ours; a new folder is always safe.
                continue
            if isinstance(state, dict) and state.get("key") == key and not state.get("finished"):
                return cls(file.parent, key, state.get("steps"))
        ledger = cls(increment_run(root, name), key)
        ledger._save()
        return ledger

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """The recorded result of the step, or the result of doing it now."""
        if name not in self.steps:
            result = work()
            self.steps[name] = result
            self._save()
        return self.steps[name]

    def done(self, name: str) -> bool:
        """Whether the step has been completed."""
        return name in self.steps

    def finish(self) -> None:
        """Marks the run complete: the same command then starts a new one."""
        self.finished = True
        self._save()

    def _save(self) -> None:
        write_json(self.folder / self.FILE, {"key": self.key, "finished": self.finished, "steps": self.steps})
