"""Checks images and their label files on all cores, in threads, or in processes if there are many."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from secateur.data.images import ImageError, check_image
from secateur.data.labels import LabelError, Labels, read_labels
from secateur.machine import granted_cpus
from secateur.terminal import counted

WORTH_PROCESSES = 2000
"""Number of images above which starting processes saves time."""
_CHUNK = 50


@dataclass(frozen=True)
class Checked:
    """Result of the check of one image.

    Attributes:
        shape: height and width as displayed.
        labels: None if the image is skipped.
        label_file: "" if there is none.
        problems: messages about problems.
    """

    shape: tuple[int, int] = (0, 0)
    labels: Labels | None = None
    label_file: str = ""
    problems: tuple[str, ...] = ()


def check_images(
    files: Sequence[str],
    labels: Sequence[str | None],
    key_points: tuple[int, int] | None,
    split: str,
    *,
    progress: bool,
    processes: bool,
) -> list[Checked]:
    """Checks each image and its label file, on all available cores.

    Args:
        files: images.
        labels: label file of each image.
        key_points: see `read_labels`.
        split: name of the split, for the progress bar.
        progress: show a progress bar on a terminal.
        processes: use processes. Threads block each other while labels are parsed. Each process imports the main
            program again, so only a command may use them.

    Raises:
        UserError: a label file is not text.
    """
    cpus = granted_cpus()
    work = partial(_check_pair, key_points=key_points)
    pairs = list(zip(files, labels, strict=True))
    if processes and cpus > 1 and len(pairs) >= WORTH_PROCESSES:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(cpus, mp_context=context, initializer=_leave_interrupts_to_the_parent)
        try:
            return _tracked(pool, work, pairs, split, progress)
        except BrokenProcessPool:  # a process was killed, possibly for lack of memory; threads need less
            pass
    # OpenCV releases the interpreter lock while decoding, so threads use several cores without pickling.
    return _tracked(ThreadPoolExecutor(min(32, cpus + 1)), work, pairs, split, progress)


def check_image_and_labels(file: str, label_file: str | None, key_points: tuple[int, int] | None) -> Checked:
    """Decodes one image and reads its labels.

    Raises:
        UserError: the label file is not text.
    """
    problems: list[str] = []
    try:
        height, width, remark = check_image(file)
    except ImageError as error:
        return Checked(problems=(f"{file}: {error}; skipped",))
    if remark:
        problems.append(f"{file}: {remark}")
    if label_file is None:
        return Checked((height, width), Labels(), "", tuple(problems))
    try:
        labels = read_labels(label_file, key_points)
    except (LabelError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Checked(problems=(*problems, f"{label_file}: {reason}; the image is skipped"))
    if labels.clipped:
        problems.append(f"{label_file}: coordinates just outside the image, clipped ({labels.clipped})")
    if labels.flat:
        places = f"line {labels.flat[0]}" + (f" and {len(labels.flat) - 1} more" if len(labels.flat) > 1 else "")
        problems.append(f"{label_file}: boxes of zero size, ignored ({places})")
    if labels.duplicates:
        problems.append(f"{label_file}: {labels.duplicates} duplicate rows removed")
    return Checked((height, width), labels, label_file, tuple(problems))


def _check_pair(pair: tuple[str, str | None], key_points: tuple[int, int] | None) -> Checked:
    return check_image_and_labels(*pair, key_points)


def _tracked(
    pool: Executor,
    work: Callable[[tuple[str, str | None]], Checked],
    pairs: list[tuple[str, str | None]],
    split: str,
    progress: bool,
) -> list[Checked]:
    with _cancelled_on_failure(pool):
        results = pool.map(work, pairs, chunksize=_CHUNK)
        return list(counted(results, f"checking {split}", len(pairs), shown=progress))


@contextmanager
def _cancelled_on_failure(pool: Executor) -> Iterator[None]:
    try:
        yield
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
