"""A resumable run: its folder, its key, the parts that are done, its log and its lock. Every command that takes minutes
opens one; the same command continues after the last completed part."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from secateur.errors import UserError
from secateur.files import fresh_run, no_empty_folders, read_json, usable_path, write_json
from secateur.pruning.rounds import STATE as ROUNDS
from secateur.pruning.search import STATE as SEARCH
from secateur.runs.folders import Summary, finish
from secateur.runs.recipes.resolve import PlannedStep, settings_of_step
from secateur.training.distributed import of_first, once, one_for_all, rank_and_world
from secateur.training.results import KEPT
from secateur.training.state import STATE_FILE

LOG = logging.getLogger("secateur")
LOCK, LOG_FILE = ".lock", "run.log"
FORMAT = 3
"""Version of the run folder. A run that another version began is not continued."""
GIVEN = {"start", "row dense"}
"""Parts that only save and measure what a run was given."""
WORTH_KEEPING = (STATE_FILE, ROUNDS, SEARCH, "plan.json")
"""Files from which a long step continues."""


def digest(value: Any) -> str:
    """A short digest of plain data."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """A short digest of a file's content; "" for a file that is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if usable_path(file).is_file() else ""


def key_of(
    options: Mapping[str, Any], contents: Mapping[str, str], files: Iterable[str], steps: Sequence[PlannedStep] = ()
) -> dict[str, str]:
    """All that the results of a run depend on, by names that a user knows.

    Args:
        options: their values by name; the number of processes that load images changes nothing.
        contents: of the data, in words -> a digest, see `checkpoints.training.contents`.
        files: that options name; their content counts, and that of the files that steps name.
        steps: with all their settings.
    """
    key = {f"--{name.replace('_', '-')}": digest(value) for name, value in options.items() if name != "workers"}
    named = dict.fromkeys([*files, *(file for planned in steps for file in planned.step.files())])
    key |= {f"the file {file}": file_digest(Path(file)) for file in named if file}
    return (
        key | dict(contents) | {"the settings of its steps": digest([settings_of_step(planned) for planned in steps])}
    )


class Progress:
    """One run: the completed parts and their results, kept in `FOLDER/progress.json`.

    A result is plain JSON data. A part is recorded only once its files are complete, so a kill at any point
    costs at most the part that was under way (and that may resume by itself). While a run is open no other process
    can open it. Of the processes of one training the first one writes.

    Attributes:
        folder: of the run.
        key: what the results depend on, by name; a run continues only where all of it is the same.
        parts: results by name.
    """

    FILE = "progress.json"

    def __init__(self, folder: Path, key: Mapping[str, str] | None = None) -> None:
        state = _state(folder / self.FILE)
        self.folder = folder
        self.key: dict[str, str] = dict(state.get("key", {}) if key is None else key)
        self.parts: dict[str, Any] = dict(state.get("steps", {}))

    @classmethod
    @contextmanager
    def open(cls, root: Path, name: str, key: Mapping[str, str], device: str = "auto") -> Iterator[Progress]:
        """Continues the newest unfinished run of the same key under `root`, or starts a new folder.

        On failure a folder without anything to continue from goes again.

        Args:
            key: everything that the results depend on, see `key_of`.
            device: of a training, whose processes share the folder.

        Raises:
            UserError: another process is at work on that very run, or no folder can be made.
        """
        key = {**key, "format": str(FORMAT)}
        with no_empty_folders(root), ExitStack() as lock:

            def begin() -> str:
                # Two equal commands started together must not both find nothing and make a folder each.
                with _gate(root):
                    folder = cls._unfinished(root, name, key) or cls._new(root, name, key)
                    lock.enter_context(run_lock(folder))
                return str(folder)

            progress = cls(Path(once(begin, device)), key)
            try:
                with log_file(progress.folder):
                    yield progress
            except Exception:
                progress._leave_if_idle()
                raise

    @classmethod
    @contextmanager
    def resume(cls, folder: Path) -> Iterator[Progress]:
        """Continues the run in a folder, also one that an earlier version began without a key.

        Raises:
            UserError: another process is at work on it.
        """
        with run_lock(folder), log_file(folder):
            yield cls(folder)

    @classmethod
    def _new(cls, root: Path, name: str, key: Mapping[str, str]) -> Path:
        with fresh_run(root, name) as folder:
            cls(folder, key)._save()
            return folder

    def _leave_if_idle(self) -> None:
        """Removes a folder in which nothing was done but to save and measure what the run was given."""
        # What failed may have removed the folder itself: a pattern then finds nothing.
        kept = any(next(self.folder.rglob(name), None) for name in WORTH_KEEPING)
        if not kept and self.parts.keys() <= GIVEN:
            shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def _unfinished(cls, root: Path, name: str, key: Mapping[str, str]) -> Path | None:
        """The folder of the newest unfinished run of the key; where only another key is found, what differs is said."""
        reasons: list[str] = []
        files = sorted(root.glob(f"{name}*/{cls.FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files:
            state = _state(file)
            if state.get("finished", True):
                continue
            known = state.get("key")
            if known == key:
                done = f": {len(state['steps'])} parts are done" if state["steps"] else ""  # a training has none
                LOG.info("Going on in %s%s.", file.parent, done)
                return file.parent
            reasons.append(f"{file.parent} is unfinished, but {_difference(known, key)}")
        if reasons:
            LOG.info("Starting afresh: %s.", reasons[0])
        return None

    def step(self, name: str, work: Callable[[], Any], *, together: bool = False) -> Any:
        """The recorded result of the part, or the result of doing it now.

        Args:
            together: of several processes all do the part; otherwise the first one does, and the others wait for its
                result. What the first one has done counts.
        """
        first = rank_and_world()[0] == 0
        if of_first(name in self.parts):
            self.parts[name] = of_first(self.parts.get(name))
            return self.parts[name]
        with nullcontext() if together else one_for_all():
            result = work() if together or first else None
        result = of_first(result)
        if first:
            self._save({**self.parts, name: result})
        self.parts[name] = result
        return result

    def finish(self, summary: Summary) -> Summary:
        """Writes summary.json, and marks the run complete: the same command then starts a new one."""
        done = finish(self.folder, summary)
        self._save(finished=True)
        return done

    def _save(self, parts: Mapping[str, Any] | None = None, *, finished: bool = False) -> None:
        steps = self.parts if parts is None else parts
        write_json(self.folder / self.FILE, {"key": self.key, "finished": finished, "steps": steps})


def _state(file: Path) -> dict[str, Any]:
    """What a run noted; nothing for a foreign or damaged file, which is no run of ours: a new folder is always safe."""
    try:
        state = read_json(file)
    except UserError:
        return {}
    return state if isinstance(state, dict) and isinstance(state.get("steps"), dict) else {}


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
    if rank_and_world()[0] != 0:
        yield
        return
    # The system gives the lock up when the process dies, however it dies.
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another process is at work on {folder}; wait until it ends, or start this one under another --name."
        ) from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


class _LogLine(logging.Formatter):
    """A line of the log; a warning says that it is one, so that the page of the run finds it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without what follows it, such as a traceback."""
        if record.levelno >= logging.WARNING:
            record.message = f"warning: {record.message}"
        return super().formatMessage(record)


class _LogFile(logging.FileHandler):
    """A log that cannot be written, on a full disk, stops nothing: what is worth keeping says so itself."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """No traceback on the terminal."""


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """What is said while the run goes on is also written into its folder, a resumed run behind what was there.

    Of the processes of one training the first one writes.
    """
    if rank_and_world()[0] != 0:
        yield
        return
    handler = _LogFile(folder / LOG_FILE, encoding="utf-8", delay=True)
    handler.setFormatter(_LogLine("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    loggers = (LOG, logging.getLogger(KEPT))
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
