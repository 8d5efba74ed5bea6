"""Writing files so that a kill or a full disk never leaves half of one, and naming run folders."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateur.errors import UserError, told


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
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
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
        # The end of the name tells what kind of folder it is, also before it has its own.
        temporary = Path(tempfile.mkdtemp(prefix=".", suffix=f"-{path.name}", dir=path.parent))
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
    """Reads JSON; UserError names the file when it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({told(error)}).") from error


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
