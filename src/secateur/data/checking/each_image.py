"""Checks images and their label files on all cores: in threads, or in processes where there are many."""

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
"""Images from which on the start of processes takes less time than it saves."""
_CHUNK = 50


@dataclass(frozen=True)
class Checked:
    """What the check of one image gave.

    Attributes:
        shape: height and width as displayed.
        labels: None where the image is left out.
        label_file: "" where there is none.
        problems: what was wrong.
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
    """Checks each image with its label file, on as many cores as are granted.

    Args:
        files: images.
        labels: the label file of each.
        key_points: as for `read_labels`.
        split: name of the split, for the progress bar.
        progress: show a bar on a terminal.
        processes: threads wait for each other while labels are parsed; processes do not, but each imports the
            program that has started this one, so only a command may ask for them.

    Raises:
        UserError: a label file is no text.
    """
    cpus = granted_cpus()
    work = partial(_check_pair, key_points=key_points)
    pairs = list(zip(files, labels, strict=True))
    if processes and cpus > 1 and len(pairs) >= WORTH_PROCESSES:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(cpus, mp_context=context, initializer=_leave_interrupts_to_the_parent)
        try:
            return _tracked(pool, work, pairs, split, progress)
        except BrokenProcessPool:  # the system ended a process, perhaps because memory ran out: threads take less
            pass
    # OpenCV releases the interpreter while it decodes, so threads use several cores and nothing is pickled.
    return _tracked(ThreadPoolExecutor(min(32, cpus + 1)), work, pairs, split, progress)


def check_image_and_labels(file: str, label_file: str | None, key_points: tuple[int, int] | None) -> Checked:
    """Decodes one image and reads its labels.

    Raises:
        UserError: the label file is no text.
    """
    problems: list[str] = []
    try:
        height, width, remark = check_image(file)
    except ImageError as error:
        return Checked(problems=(f"{file}: {error}; left out",))
    if remark:
        problems.append(f"{file}: {remark}")
    if label_file is None:
        return Checked((height, width), Labels(), "", tuple(problems))
    try:
        labels = read_labels(label_file, key_points)
    except (LabelError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Checked(problems=(*problems, f"{label_file}: {reason}; the image is left out"))
    if labels.clipped:
        problems.append(f"{label_file}: coordinates just outside the image, clipped ({labels.clipped})")
    if labels.flat:
        places = f"line {labels.flat[0]}" + (f" and {len(labels.flat) - 1} more" if len(labels.flat) > 1 else "")
        problems.append(f"{label_file}: boxes of zero size, which are no objects ({places})")
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
