"""Writing files so that a kill or a full disk never leaves half of one, and naming run folders."""

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
"""Seconds after which a file of a process that is gone is left over."""
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Bytes of one name, and of a whole path with the zero at its end: Linux' limits, and not under those of others."""


def usable_path(path: str | Path, *, expand: bool = False) -> Path:
    """The path, if the system can have a file of that name.

    Args:
        path: as a user or a file of theirs wrote it.
        expand: a leading ~ stands for a home.

    Raises:
        UserError: a NUL character, a name that is too long or that no encoding takes, or the home of nobody.
    """
    shown = shortened(str(path).replace("\0", "\\0"))
    try:
        result = Path(path).expanduser() if expand else Path(path)
        longest = max((len(os.fsencode(part)) for part in result.parts), default=0)
        whole = len(os.fsencode(result))
    except RuntimeError:
        raise UserError(f"The path {shown} begins with a home that is not here; write the whole path.") from None
    except UnicodeEncodeError:
        raise UserError(f"The path {shown!r} has characters that no file name has; correct it.") from None
    if "\0" in str(path):
        raise UserError(f"The path {shown} has a NUL character in it; correct it.")
    if longest > LONGEST_NAME or whole >= LONGEST_PATH:
        raise UserError(f"The path {shown} is longer than the system allows; correct it.")
    return result


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path beside `path`; on success it replaces `path`, on any failure it is removed.

    Args:
        path: where the file goes.
        durable: wait until the disk has it, so that it outlives a power cut; that takes milliseconds.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        # A long name may have no room for the rest.
        prefix = f"{_mark()}{path.stem[:40]}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        # mkstemp makes the file private; the result gets the rights that a plain open() would have given.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}; choose another place or free some space."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; on success it gets that name, on any failure it is removed.

    Raises:
        UserError: something has the name already, the place cannot be written, or the disk is full.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"There is a {path} already, and nothing is overwritten; choose another name.")
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        # The end of the name tells what kind of folder it is, also before it has its own.
        temporary = Path(tempfile.mkdtemp(prefix=_mark(), suffix=f"-{path.name}", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}; choose another place or free some space."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _mark() -> str:
    """What the names of temporary files of this process begin with: whose they are is told by name alone."""
    return f".secateur-{os.getpid()}-"


@functools.cache
def _sweep(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder, once for each folder that is written into.

    Nothing is touched but names of ours, whose process is gone and that are an hour old: folders may be shared with
    another machine, on which a process of that number is at work.
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
    """Whether there may be a process of this number on this machine."""
    if os.name != "posix":
        return True  # asking with a signal is Unix' way
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
    """Reads JSON, with a byte order mark or without; UserError names the file when it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({told(error)}).") from error


@contextmanager
def fresh_run(root: str | Path, name: str = "exp", worth_keeping: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Gives a new run folder (see `increment_run`); on failure it goes again, with the folders made around it.

    Args:
        root: holds the runs.
        name: of the folder.
        worth_keeping: asked on failure, whether the folder is to stay nevertheless.

    Raises:
        UserError: the folder cannot be made.
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
    """On failure, removes `root` and the folders around it that were made meanwhile, as far as nothing is in them."""
    made = [place for place in (root, *root.parents) if not place.exists()]
    try:
        yield
    except Exception:
        for place in made:
            with suppress(OSError):  # another run may be in it by now
                place.rmdir()
        raise


def increment_run(root: str | Path, name: str = "exp") -> Path:
    """Makes and returns the first free folder of `root`/exp, exp2, exp3, ...: nothing of the user's is overwritten.

    Raises:
        UserError: the folder cannot be made.
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
                raise UserError(f"Cannot make a run folder: {root} is a file; choose another --project.") from None
            number += 1
        except OSError as error:
            raise UserError(
                f"Cannot make the run folder {folder}: {error.strerror or error}; choose another --project."
            ) from error
