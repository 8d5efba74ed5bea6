"""Atomic file writes, which survive kills and full disks, and names of run folders."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from secateur.errors import UserError, told
from secateur.ranges import shortened

_TEMPORARY = re.compile(r"\.secateur-(\d+)-")
OLD = 3600.0
"""Age in seconds after which temporary files of a dead process are removed."""
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Longest file name and longest path (including the terminating zero) in bytes: Linux's limits, which other systems
match or exceed.
"""


def usable_path(path: str | Path, *, expand: bool = False) -> Path:
    """Checks that the system can have a file with this path.

    Args:
        path: as given by the user or in a user's file.
        expand: whether a leading ~ is expanded to a home folder.

    Raises:
        UserError: the path contains a NUL character, a name is too long or cannot be encoded, or the home folder is
            unknown.
    """
    shown = shortened(str(path).replace("\0", "\\0"))
    try:
        result = Path(path).expanduser() if expand else Path(path)
        longest = max((len(os.fsencode(part)) for part in result.parts), default=0)
        whole = len(os.fsencode(result))
    except RuntimeError:
        raise UserError(f"Cannot expand the home folder in {shown}. Write the complete path.") from None
    except UnicodeEncodeError:
        raise UserError(
            f"The path {shown!r} contains characters that are not allowed in file names. Correct it."
        ) from None
    if "\0" in str(path):
        raise UserError(f"The path {shown} contains a NUL character. Correct it.")
    if longest > LONGEST_NAME or whole >= LONGEST_PATH:
        raise UserError(f"The path {shown} is longer than the system allows. Shorten it.")
    return result


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the same folder. On success it replaces `path`; on failure it is removed.

    Args:
        path: destination of the file.
        durable: wait until the data is on disk, so that it survives a power failure. Takes milliseconds.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        # A long name may leave no space for the suffix.
        prefix = f"{_mark()}{path.stem[:40]}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        # mkstemp creates a private file; apply the permissions that a plain open() would have set.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Choose another location or free some space."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder next to `path`. On success it is renamed to `path`; on failure it is removed.

    Raises:
        UserError: the name exists already, the location cannot be written, or the disk is full.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} already exists and is not overwritten. Choose another name.")
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        # Keep the end of the name, which determines the kind of folder, in the temporary name too.
        temporary = Path(tempfile.mkdtemp(prefix=_mark(), suffix=f"-{path.name}", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Choose another location or free some space."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _mark() -> str:
    """Prefix of this process's temporary file names, from which their owner is identified."""
    return f".secateur-{os.getpid()}-"


@functools.cache
def _sweep(folder: Path) -> None:
    """Removes temporary files of killed processes from a folder. Runs once per folder.

    Removes only files with our prefix whose process is dead and which are an hour old: another machine that shares the
    folder may run a process with the same number.
    """
    with suppress(OSError):
        for file in folder.iterdir():
            found = _TEMPORARY.match(file.name)
            with suppress(OSError):
                if not found or _runs(int(found[1])) or time.time() - file.lstat().st_mtime < OLD:
                    continue
                if file.is_dir() and not file.is_symlink():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    file.unlink()


def _runs(process: int) -> bool:
    """Whether a process with this number may be running on this machine."""
    if os.name != "posix":
        return True  # probing with a signal is specific to Unix
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON, with or without a byte order mark. Raises UserError if the file is missing or invalid."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({told(error)}).") from error


@contextmanager
def fresh_run(root: str | Path, name: str = "exp", worth_keeping: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Yields a new run folder (see `increment_run`). On failure, removes it and the parent folders created for it.

    Args:
        root: folder that holds the runs.
        name: name of the run folder.
        worth_keeping: called on failure; if it returns True, the folder is kept.

    Raises:
        UserError: the folder cannot be created.
    """
    root = Path(root)
    with no_empty_folders(root):
        folder = increment_run(root, name)
        try:
            yield folder
        except Exception:
            if not worth_keeping():
                shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def no_empty_folders(root: Path) -> Iterator[None]:
    """On failure, removes `root` and its parent folders that were created in the meantime, if they are empty."""
    made = [place for place in (root, *root.parents) if not place.exists()]
    try:
        yield
    except Exception:
        for place in made:
            with suppress(OSError):  # another run may use the folder by now
                place.rmdir()
        raise


def increment_run(root: str | Path, name: str = "exp") -> Path:
    """Creates and returns the first free folder of `root`/exp, exp2, exp3, ...; never overwrites existing files.

    Raises:
        UserError: the folder cannot be created.
    """
    root = Path(root)
    number = 1
    while True:
        folder = root / (name if number == 1 else f"{name}{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if root.exists() and not root.is_dir():
                raise UserError(f"Cannot create a run folder: {root} is a file. Choose another --project.") from None
            number += 1
        except OSError as error:
            raise UserError(
                f"Cannot create the run folder {folder}: {error.strerror or error}. Choose another --project."
            ) from error
