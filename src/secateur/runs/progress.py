"""Resumable runs: folder, key, completed parts, log and lock. Every command that takes minutes uses one; the same
command resumes after the last completed part.
"""

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
"""Version of the run-folder format. Runs written in another version are not resumed."""
GIVEN = {"start", "row dense"}
"""Parts that only save and evaluate the input of a run."""
WORTH_KEEPING = (STATE_FILE, ROUNDS, SEARCH, "plan.json")
"""Files from which a long step resumes."""


def digest(value: Any) -> str:
    """A short digest of plain data."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """A short digest of a file's content; "" if the file does not exist."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if usable_path(file).is_file() else ""


def key_of(
    options: Mapping[str, Any], contents: Mapping[str, str], files: Iterable[str], steps: Sequence[PlannedStep] = ()
) -> dict[str, str]:
    """Everything that the results of a run depend on, by names that users understand.

    Args:
        options: values by name; the number of loader processes is ignored because it does not affect results.
        contents: descriptions of the data -> digest, see `checkpoints.training.contents`.
        files: files named by options; their content counts, as does that of files named by steps.
        steps: the planned steps with all settings.
    """
    key = {f"--{name.replace('_', '-')}": digest(value) for name, value in options.items() if name != "workers"}
    named = dict.fromkeys([*files, *(file for planned in steps for file in planned.step.files())])
    key |= {f"the file {file}": file_digest(Path(file)) for file in named if file}
    return (
        key | dict(contents) | {"the settings of its steps": digest([settings_of_step(planned) for planned in steps])}
    )


class Progress:
    """One run: completed parts and their results, stored in `FOLDER/progress.json`.

    A result is plain JSON data. A part is recorded only when its files are complete, so a kill costs at most the
    current part (which may itself be resumable). While a run is open, no other process can open it. Of the processes of
    one training, only the first one writes.

    Attributes:
        folder: folder of the run.
        key: everything that the results depend on, by name; a run resumes only if all of it is equal.
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
        """Resumes the newest unfinished run with an equal key under `root`, or starts a new folder.

        On failure, a folder that contains nothing to resume from is removed.

        Args:
            root: parent folder of the runs.
            name: name of the run folder.
            key: everything that the results depend on, see `key_of`.
            device: device of a training whose processes share the folder.

        Raises:
            UserError: another process uses this run, or no folder can be created.
        """
        key = {**key, "format": str(FORMAT)}
        with no_empty_folders(root), ExitStack() as lock:

            def begin() -> str:
                # The gate prevents two equal commands, started together, from both creating a new folder.
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
        """Resumes the run in a folder, including runs of earlier versions without a key.

        Raises:
            UserError: another process uses this run.
        """
        with run_lock(folder), log_file(folder):
            yield cls(folder)

    @classmethod
    def _new(cls, root: Path, name: str, key: Mapping[str, str]) -> Path:
        with fresh_run(root, name) as folder:
            cls(folder, key)._save()
            return folder

    def _leave_if_idle(self) -> None:
        """Removes a folder in which only the input was saved and evaluated."""
        # The failing code may have removed the folder itself; the pattern then finds nothing.
        kept = any(next(self.folder.rglob(name), None) for name in WORTH_KEEPING)
        if not kept and self.parts.keys() <= GIVEN:
            shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def _unfinished(cls, root: Path, name: str, key: Mapping[str, str]) -> Path | None:
        """The folder of the newest unfinished run with this key. If only other keys are found, logs what differs."""
        reasons: list[str] = []
        files = sorted(root.glob(f"{name}*/{cls.FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files:
            state = _state(file)
            if state.get("finished", True):
                continue
            known = state.get("key")
            if known == key:
                done = (
                    (f": {len(state['steps'])} parts are complete") if state["steps"] else ""
                )  # a training has no parts
                LOG.info("Resuming in %s%s.", file.parent, done)
                return file.parent
            reasons.append(f"{file.parent} is unfinished, but {_difference(known, key)}")
        if reasons:
            LOG.info("Starting a new run: %s.", reasons[0])
        return None

    def step(self, name: str, work: Callable[[], Any], *, together: bool = False) -> Any:
        """Returns the recorded result of a part, or runs the part and records its result.

        Args:
            name: name of the part.
            work: computes the result.
            together: whether all processes run the part; otherwise the first one does and the others wait for its
                result. The record of the first process counts.
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
        """Writes summary.json and marks the run as complete; the same command then starts a new run."""
        done = finish(self.folder, summary)
        self._save(finished=True)
        return done

    def _save(self, parts: Mapping[str, Any] | None = None, *, finished: bool = False) -> None:
        steps = self.parts if parts is None else parts
        write_json(self.folder / self.FILE, {"key": self.key, "finished": finished, "steps": steps})


def _state(file: Path) -> dict[str, Any]:
    """The recorded state of a run; empty if the file is foreign or damaged, so that a new folder is used."""
    try:
        state = read_json(file)
    except UserError:
        return {}
    return state if isinstance(state, dict) and isinstance(state.get("steps"), dict) else {}


def _difference(known: Any, key: Mapping[str, str]) -> str:
    """What differs from a run's key, as text."""
    if not isinstance(known, dict) or known.get("format") != key["format"]:
        return "it was started by another version of Secateur"
    names = [name for name in sorted({*known, *key}) if known.get(name) != key.get(name)]
    return f"{', '.join(names)} changed since"


def _gate(root: Path) -> FileLock:
    """A lock for all runs of a folder, held only while a run is opened, in a location that leaves no files behind."""
    return FileLock(Path(tempfile.gettempdir()) / f"secateur-{digest(str(root.absolute()))}.lock")


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder. The processes of one training share it; the first one holds the lock.

    Raises:
        UserError: another process uses this folder.
    """
    if rank_and_world()[0] != 0:
        yield
        return
    # The system releases the lock when the process ends, even if it is killed.
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another process is using {folder}. Wait until it ends, or start this run with another --name."
        ) from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


class _LogLine(logging.Formatter):
    """A log line. Warnings are marked, so that the report page finds them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without attachments such as a traceback."""
        if record.levelno >= logging.WARNING:
            record.message = f"warning: {record.message}"
        return super().formatMessage(record)


class _LogFile(logging.FileHandler):
    """A log file whose write errors (such as a full disk) do not stop the run; important files report their own
    errors.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Suppresses the traceback on the terminal."""


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Also writes log messages into the run's folder; a resumed run appends to its log.

    Of the processes of one training, only the first one writes.
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
