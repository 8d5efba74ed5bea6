"""The machine: granted CPUs, devices selected by the user, and the processor's name."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.errors import UserError

if TYPE_CHECKING:
    import torch

# Flags of /proc/cpuinfo for fast arithmetic, and their common names.
_FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16", "bf16"),
    "AMX": ("amx_tile",),
    "NEON": ("asimd",),
    "DOT": ("asimddp",),
}


def granted_cpus(root: Path = Path("/")) -> int:
    """Logical processors that this process may use: its CPU affinity (taskset), limited by the container's quota.

    Args:
        root: root of /proc and /sys, for tests.
    """
    return _within_quota(len(_affinity()), root)


def cpu_threads(root: Path = Path("/")) -> int:
    """Threads for one computation: physical cores, not hyper-threads, of the granted processors.

    At most `OMP_NUM_THREADS`, which users set, and which torchrun sets if it starts several processes.

    Args:
        root: root of /proc and /sys, for tests.
    """
    places = root / "sys/devices/system/cpu"
    siblings = set()
    for cpu in _affinity():
        try:
            siblings.add((places / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            siblings.add(str(cpu))
    threads = _within_quota(len(siblings), root)
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(told)) if told.isdecimal() and int(told) > 0 else threads


def use_threads(threads: int = 0) -> int:
    """Sets and returns the number of PyTorch threads; 0 uses `cpu_threads()`.

    Raises:
        UserError: the number is negative.
    """
    import torch

    if threads < 0:
        raise UserError(f"The number of threads is {threads}; it must be positive, or 0 to use all granted CPUs.")
    torch.set_num_threads(threads or cpu_threads())
    return torch.get_num_threads()


def return_memory() -> None:
    """Returns unused memory to the system.

    Linux's allocator keeps freed blocks of up to 32 MB. When a network changes its shapes, later blocks do not fit into
    them: memory for pruning yolov5x in rounds grew from 6.6 to 9.4 GB, with less than 2 GB in use.
    """
    with suppress(OSError, AttributeError):  # only glibc has this call, and only glibc needs it
        ctypes.CDLL(None).malloc_trim(0)


class SignalStack(ctypes.Structure):
    """Linux's `stack_t`: the stack for a thread's signals. Flag 2 means that there is none."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Restores the signal stack of this thread on exit, in case a library replaces it.

    On processors with AMX, OpenVINO installs a signal stack in the thread that loads it and removes it with the last
    model. With two models, it can leave the thread with a stack that is already freed; the next signal (Ctrl-C, or the
    end of a child process) then kills the program without a message.
    """
    if sys.platform != "linux":
        yield
        return
    system, before = ctypes.CDLL(None), SignalStack()
    system.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        system.sigaltstack(ctypes.byref(before), None)


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Pins this process to as many processors as it has threads, one per core, so that threads do not migrate during
    timing. On exit, restores the affinity of all threads.

    Does nothing if no more processors are granted, or if the system is not Linux.

    Returns:
        numbers of the processors; empty if nothing was pinned.
    """
    before = _affinity()
    places = tuple(_one_a_core(before)[:threads])
    if sys.platform != "linux" or threads < 1 or len(places) < threads or len(before) <= threads:
        yield ()
        return
    _bind(places)
    try:
        yield places
    finally:
        _bind(tuple(before))


def pick_device(device: str | int | torch.device = "auto") -> torch.device:
    """The device for a user's text: auto, cpu, mps, 0, cuda, cuda:1, or 0,1 under torchrun. A torch.device is returned
    unchanged.

    Each process of torchrun gets its own GPU: the one with its local rank, or that entry of a list.

    Raises:
        UserError: there is no such device, or more devices are named than processes were started.
    """
    import torch

    text = str(device)
    words = text.strip().lower()
    if words in {"cpu:0", "mps:0"}:  # how PyTorch formats a device with a number
        words = words.removesuffix(":0")
    if words in {"cpu", "mps"}:
        if words == "mps" and not torch.backends.mps.is_available():
            raise UserError("Device mps is not available: it requires a Mac with Apple silicon. Use auto or cpu.")
        return torch.device(words)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    rank, world = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if words in {"", "auto"} and not count:
        return torch.device("cpu")
    if words in {"", "auto", "cuda"}:
        chosen = list(range(world))
    elif re.fullmatch(r"(cuda:)?\d+(,\d+)*", words):
        chosen = [int(number) for number in words.removeprefix("cuda:").split(",")]
    else:
        raise UserError(f"Unknown device {text!r}. Use auto, cpu, mps, a GPU number (0), or several (0,1).")
    if not count:
        raise UserError(f"Device {text} is not available: PyTorch finds no CUDA device. Use cpu or auto.")
    if max(chosen) >= count:
        shown = "one GPU, number 0" if count == 1 else f"{count} GPUs, numbers 0 to {count - 1}"
        what = (
            f"There is no GPU {max(chosen)}"
            if len(chosen) != world or world == 1
            else f"{world} processes are too many"
        )
        raise UserError(f"{what}: PyTorch finds {shown}.")
    if len(chosen) != world:
        raise UserError(_processes_missing(text, len(chosen), world))
    return torch.device("cuda", chosen[rank])


def processor() -> str:
    """The processor's name and its fast arithmetic: "Intel(R) Xeon(R) Processor (AVX2, AVX-512, VNNI)"."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    have = set(flags.group(1).split()) if flags else set()
    features = [feature for feature, marks in _FEATURES.items() if have & set(marks)]
    title = " ".join(name.group(1).split()) if name else _name_by_system()
    return f"{title} ({', '.join(features)})" if features else title


def simd_channels() -> int:
    """Number of fp32 channels in a SIMD register: 16 with AVX-512, 8 with AVX2, NEON and others."""
    return 16 if "AVX-512" in processor() else 8


def _name_by_system() -> str:
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


def _processes_missing(text: str, devices: int, world: int) -> str:
    """The error message for a list of GPUs that does not match the number of processes."""
    if world > 1:
        return f"Device {text} names {devices} GPUs, but torchrun started {world} processes. Name one GPU per process."
    program = Path(sys.argv[0])
    ours = program.stem == "secateur" or program.parent.name == "secateur"
    line = f"-m secateur {shlex.join(sys.argv[1:])}" if ours else shlex.join(sys.argv)
    return (
        f"Device {text} names {devices} GPUs, which need one process each. Run: torchrun --nproc_per_node "
        f"{devices} {line}"
    )


def _affinity() -> set[int]:
    """Numbers of the logical processors that this process may run on."""
    if sys.platform != "linux":
        return set(range(os.cpu_count() or 1))
    return os.sched_getaffinity(0)


def _one_a_core(cpus: set[int]) -> list[int]:
    """The first logical processor of every core, then the others."""
    firsts: dict[str, int] = {}
    for cpu in sorted(cpus):
        try:
            core = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(cpu)
        firsts.setdefault(core, cpu)
    return [*firsts.values(), *sorted(cpus - set(firsts.values()))]


def _bind(cpus: tuple[int, ...]) -> None:
    """Pins all current threads of the process to these processors. New threads inherit from the thread that creates
    them.
    """
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cpus)
        except OSError:  # the thread has ended, or the container forbids it
            continue


def _within_quota(cpus: int, root: Path) -> int:
    """Limits the number to the CPU quota of the control groups, rounded down: a throttled thread delays all others."""
    quota = _quota(root)
    return max(1, cpus if quota is None else min(cpus, int(quota)))


def _quota(root: Path) -> float | None:
    """CPU quota of this process's control groups (version 1 or 2), in processors; None if there is no limit."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = []
    for group in groups:
        _, controllers, path = group.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        tops = [root / "sys/fs/cgroup" / name for name in {controllers, *names}]
        for top in tops:
            # The limits of all parent groups apply too. Inside a container, only the root may be readable.
            place = top / path.lstrip("/")
            for folder in (place, *place.parents):
                if folder.is_relative_to(top):
                    found += _limit(folder)
    return min(found, default=None)


def _limit(folder: Path) -> list[float]:
    """The limit set by one control group, if any."""
    try:
        if (folder / "cpu.max").is_file():
            time, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            time, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(time) / int(period)] if time != "max" and int(time) > 0 else []
    except (OSError, ValueError):
        return []
