"""Runs cases in forked children under limits and an audit hook; says how each one ended."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuzz_readers import READERS, Bases

from secateur.errors import UserError

MEMORY = 2**30  # bytes beyond those of the process that forks
SECONDS = 20.0
BATCH = 40  # cases of one child; a fresh one forgets what a case may have left behind
LONGEST = 300  # characters of a sentence
FINE = ("read", "refused")
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")} | {"<frozen"})
_REACHES_OUT = ("subprocess", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.", "socket.",
                "ftplib",
                "urllib", "webbrowser", "smtplib", "code.__new__", "os.startfile")  # fmt: skip
_CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "shutil.rmtree"), slice(1)),
    **dict.fromkeys(("os.rename", "shutil.move"), slice(2)),
    **dict.fromkeys(("os.link", "os.symlink", "shutil.copyfile"), slice(1, 2)),
}
"""Which of an event's arguments are the places that it changes."""


@dataclass(frozen=True)
class Case:
    """One damaged file: the reader and the seed make it again."""

    reader: str
    seed: int

    def content(self, bases: Bases) -> bytes:
        """The bytes of the damaged file."""
        reader, rng = READERS[self.reader], random.Random(f"{self.reader} {self.seed}")
        return rng.choice(reader.mutations)(rng, bases[reader.file])


@dataclass(frozen=True)
class Outcome:
    """How a case ended: "read", "refused", or what is a finding (traceback, crash, time, memory, event, sentence)."""

    reader: str
    seed: int
    end: str
    words: str = ""
    seconds: float = 0.0

    @property
    def fine(self) -> bool:
        return self.end in FINE


class Forbidden(BaseException):
    """What no input may make the program do."""


def watch(folder: Path, found: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that notes, and stops, code of a file, processes, sockets, and writing outside the folder."""
    inside = str(folder)

    def outside(path: Any) -> bool:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return bool(text) and text != os.devnull and not os.path.abspath(text).startswith(inside)  # noqa: PTH100  (links stay)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        wrong = ""
        if event.startswith(_REACHES_OUT):
            wrong = event
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and outside(path):
                wrong = f"open {path!r} for writing"
        elif event in _CHANGES and any(outside(path) for path in arguments[_CHANGES[event]]):
            wrong = f"{event} {arguments!r}"
        elif event in ("exec", "compile"):
            # Libraries make classes out of texts of their own when they are imported; none of it comes from a file.
            caller = sys._getframe(1).f_code.co_filename
            if not caller.startswith(_LIBRARIES) or "serialization" in caller or "pickle" in caller:
                wrong = f"{event} by {caller}"
        if wrong:
            found.append(wrong)
            raise Forbidden(wrong)

    return hook


def run_case(case: Case, bases: Bases, folder: Path, found: list[str]) -> Outcome:
    """Reads one damaged file in its folder, in this process."""
    reader, start = READERS[case.reader], time.monotonic()
    for name, content in bases.items():
        if name.startswith(("images/", "labels/", f"{Path(reader.file).parts[0]}/")) or name == "data.yaml":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    (folder / reader.file).write_bytes(case.content(bases))
    end, words = "read", ""
    try:
        reader.read(folder / reader.file)
    except UserError as error:
        words = str(error)
        end = "refused" if len(words) <= LONGEST and "\n" not in words else "sentence"
    except Forbidden as error:
        end, words = "event", str(error)
    except MemoryError:
        end, words = "memory", traceback.format_exc(limit=-2)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = next((f"{Path(f.filename).name}:{f.lineno}" for f in reversed(place) if "secateur" in f.filename), "")
        end = "memory" if "not enough memory" in str(error) or "alloc" in str(error).lower() else "traceback"
        words = f"{type(error).__name__}: {str(error)[:150]} ({ours})"
    if found:
        end, words = "event", found[0]
    return Outcome(case.reader, case.seed, end, words.replace("\n", " | ")[:400], time.monotonic() - start)


def _child(cases: list[Case], bases: Bases, home: Path, report: int) -> None:
    """The life of a child: its limits, its hook, its cases; one line of JSON before and after each."""
    os.environ |= {"XDG_CACHE_HOME": str(home), "HOME": str(home)}
    tempfile.tempdir = str(home)
    os.chdir(home)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    found: list[str] = []
    sys.addaudithook(watch(home, found))
    with os.fdopen(report, "w", buffering=1) as lines:
        for number, case in enumerate(cases):
            lines.write(f'"{number}"\n')
            folder = home / f"case{number}"
            folder.mkdir()
            found.clear()
            outcome = run_case(case, bases, folder, found)
            lines.write(json.dumps(asdict(outcome)) + "\n")
            shutil.rmtree(folder, ignore_errors=True)


def _batch(cases: list[Case], bases: Bases) -> Iterator[Outcome]:
    """The outcomes of one child, as far as it lives; the case that it dies of is the last."""
    home = Path(tempfile.mkdtemp(prefix="fuzz-"))
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read)
        with contextlib.suppress(BaseException):
            _child(cases, bases, home, write)
        os._exit(0)
    os.close(write)
    begun, done, rest = -1, -1, b""
    end, words = "crash", ""
    while True:
        ready, _, _ = select.select([read], [], [], SECONDS)
        if not ready:
            os.kill(process, signal.SIGKILL)
            end, words = "time", f"over {SECONDS:g} seconds"
            break
        chunk = os.read(read, 65536)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if isinstance(told, dict):
                done = begun
                yield Outcome(**told)
            else:
                begun = int(told)
    os.close(read)
    status = os.waitpid(process, 0)[1]
    shutil.rmtree(home, ignore_errors=True)
    if begun > done:
        yield Outcome(cases[begun].reader, cases[begun].seed, end, words or f"status {status}")


def campaign(cases: list[Case], bases: Bases) -> Iterator[Outcome]:
    """The outcomes of all cases, in order."""
    place = 0
    while place < len(cases):
        ended = 0
        for outcome in _batch(cases[place : place + BATCH], bases):
            ended += 1
            yield outcome
        place += max(ended, 1)


def table(outcomes: list[Outcome]) -> str:
    """A row a reader: how its cases ended, and the longest of them."""
    ends = [*FINE, *sorted({outcome.end for outcome in outcomes} - set(FINE))]
    lines = [f"{'reader':<12}" + "".join(f"{end:>11}" for end in ends) + f"{'longest s':>11}"]
    for reader in dict.fromkeys(outcome.reader for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.reader == reader]
        counts = Counter(outcome.end for outcome in mine)
        longest = max(outcome.seconds for outcome in mine)
        lines.append(f"{reader:<12}" + "".join(f"{counts[end]:>11}" for end in ends) + f"{longest:>11.2f}")
    return "\n".join(lines)
