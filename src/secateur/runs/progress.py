"""What a run has already done, on disk and under a lock: the same command goes on after the last completed part."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from secateur.errors import UserError
from secateur.files import fresh_run, no_empty_folders, read_json, usable_path, write_json

LOG = logging.getLogger("secateur")
LOCK = ".lock"
LOG_FILE = "run.log"
BOOKKEEPING = {LOCK, LOG_FILE, "progress.json"}
FORMAT = 2
"""Of the files that parts of a run leave for later parts. A run of another format is not gone on with."""


def digest(value: Any) -> str:
    """A short digest of plain data."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """A short digest of a file's content; "" for a file that is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if usable_path(file).is_file() else ""


class Progress:
    """The completed parts of one run and their results, kept in `FOLDER/progress.json`.

    A result is plain JSON data. A part is recorded only once its files are complete, so a kill at any point
    costs at most the part that was under way (and that may resume by itself). While a run is open no other process
    can open it.

    Attributes:
        folder: of the run.
        key: what the results depend on, by name; a run goes on only where all of it is the same.
        parts: results by name.
    """

    FILE = "progress.json"

    def __init__(self, folder: Path, key: Mapping[str, str], parts: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.key = dict(key)
        self.parts: dict[str, Any] = dict(parts or {})
        self.finished = False

    @classmethod
    @contextmanager
    def open(cls, root: Path, name: str, key: Mapping[str, str]) -> Iterator[Progress]:
        """Goes on with the newest unfinished run of the same key under `root`, or starts a new folder.

        Args:
            key: everything that the results depend on: names of options, files, the data set, and a digest of each.

        Raises:
            UserError: another process is at work on that very run, or no folder can be made.
        """
        with no_empty_folders(root):
            # Two equal commands started together must not both find nothing and make a folder each.
            with _gate(root):
                progress = cls._opened(root, name, {**key, "format": str(FORMAT)})
                lock = _locked(progress.folder)
            try:
                yield progress
            except Exception:
                progress._leave_if_idle()
                raise
            finally:
                _unlock(lock)

    @classmethod
    def _opened(cls, root: Path, name: str, key: Mapping[str, str]) -> Progress:
        progress = cls._unfinished(root, name, key)
        if progress is not None:
            LOG.info("Going on in %s: %d parts are done.", progress.folder, len(progress.parts))
            return progress
        with fresh_run(root, name) as folder:
            progress = cls(folder, key)
            progress._save()
            return progress

    def _leave_if_idle(self) -> None:
        """Removes a folder in which nothing but bookkeeping was done: a failure before the first result."""
        # What failed may have removed the folder itself: a pattern then finds nothing.
        if not self.parts and {file.name for file in self.folder.glob("*")} <= BOOKKEEPING:
            shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def _unfinished(cls, root: Path, name: str, key: Mapping[str, str]) -> Progress | None:
        """The newest unfinished run of the key; where only another key is found, what differs is said."""
        reasons: list[str] = []
        files = sorted(root.glob(f"{name}*/{cls.FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files:
            try:
                state = read_json(file)
            except UserError:
                # A foreign or damaged file is no run of ours; a new folder is always safe.
                continue
            if not isinstance(state, dict) or state.get("finished"):
                continue
            known = state.get("key")
            if known == key:
                return cls(file.parent, key, state.get("steps"))
            reasons.append(f"{file.parent} is unfinished, but {_difference(known, key)}")
        if reasons:
            LOG.info("Starting afresh: %s.", reasons[0])
        return None

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """The recorded result of the part, or the result of doing it now."""
        if name not in self.parts:
            result = work()
            self._save({**self.parts, name: result})
            self.parts[name] = result
        return self.parts[name]

    def finish(self) -> None:
        """Marks the run complete: the same command then starts a new one."""
        self.finished = True
        self._save()

    def _save(self, parts: Mapping[str, Any] | None = None) -> None:
        steps = self.parts if parts is None else parts
        write_json(self.folder / self.FILE, {"key": self.key, "finished": self.finished, "steps": steps})


def _difference(known: Any, key: Mapping[str, str]) -> str:
    """What of a run's key is not as it was, in words."""
    if not isinstance(known, dict) or known.get("format") != key["format"]:
        return "it was begun by another version of Secateur"
    names = [name for name in sorted({*known, *key}) if known.get(name) != key.get(name)]
    return f"{', '.join(names)} changed since"


def _gate(root: Path) -> FileLock:
    """A lock beside all runs of a folder, held only while a run is opened; it lies where it leaves nothing behind."""
    return FileLock(Path(tempfile.gettempdir()) / f"secateur-{digest(str(root.absolute()))}.lock")


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder; the processes of one training share it, its first one holds the lock.

    Raises:
        UserError: another process is at work on it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    lock = _locked(folder)
    try:
        yield
    finally:
        _unlock(lock)


def _locked(folder: Path) -> FileLock:
    # The system gives the lock up when the process dies, however it dies.
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another process is at work on {folder}; wait until it ends, or start this one under another --name."
        ) from None
    return lock


def _unlock(lock: FileLock) -> None:
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
