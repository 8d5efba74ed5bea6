"""What the computer grants: processor cores, devices by the words that users write, the processor's name."""

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

# Flags of /proc/cpuinfo that decide which arithmetic is fast, and how people call it.
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
    """Logical processors that this process may keep busy: its affinity (taskset), within the container's quota.

    Args:
        root: where /proc and /sys lie.
    """
    return _within_quota(len(_affinity()), root)


def cpu_threads(root: Path = Path("/")) -> int:
    """Threads that one computation should use: the cores, not their hyper-threads, of the granted processors.

    Never more than `OMP_NUM_THREADS`, with which users set the number, and torchrun where it starts several processes.

    Args:
        root: where /proc and /sys lie.
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
    """Sets the number of PyTorch's threads and returns it; 0 takes `cpu_threads()`.

    Raises:
        UserError: the number is negative.
    """
    import torch

    if threads < 0:
        raise UserError(f"The number of threads must be positive, or 0 for what the machine grants, not {threads}.")
    torch.set_num_threads(threads or cpu_threads())
    return torch.get_num_threads()


def return_memory() -> None:
    """Gives the system back the memory that is not in use.

    The allocator of Linux keeps freed blocks of up to 32 MB for later, and where networks change their shapes later
    blocks do not fit into them: rounds of pruning of yolov5x grew from 6.6 to 9.4 GB, of which less than 2 were in use.
    """
    with suppress(OSError, AttributeError):  # other systems have no such call, and no such habit
        ctypes.CDLL(None).malloc_trim(0)


class SignalStack(ctypes.Structure):
    """Linux's `stack_t`: where a thread's signals are handled; flag 2 says that it has no such place of its own."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """This thread handles its signals in the same place before and after, whatever is loaded meanwhile.

    On processors with AMX, OpenVINO gives the thread that loads it a stack for signals, and takes it away with the last
    model that needs it. Where two are held at a time, it can leave the thread with one that it has freed already: the
    next signal, Ctrl-C or the end of a child process, then kills the program without a word.
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
    """Keeps this process on as many of its processors as it has threads, one a core, so that none moves while it is
    timed; afterwards all threads of the process may go where they could before.

    Where no more processors are granted than that, and where the system is not Linux, nothing happens.

    Returns:
        The numbers of the processors; none where nothing was pinned.
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
    """The device that a user's words name: auto, cpu, mps, 0, cuda, cuda:1, or 0,1 under torchrun; or that device.

    Each process of torchrun gets a GPU of its own: the one of its local rank, or that entry of a list.

    Raises:
        UserError: no such device here, or more of them named than processes were started.
    """
    import torch

    text = str(device)
    words = text.strip().lower()
    if words in {"cpu:0", "mps:0"}:  # as PyTorch writes a device that was made with a number
        words = words.removesuffix(":0")
    if words in {"cpu", "mps"}:
        if words == "mps" and not torch.backends.mps.is_available():
            raise UserError("Device mps is not here: it needs a Mac with Apple's processor; take auto or cpu.")
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
        raise UserError(f"Unknown device {text!r}; write auto, cpu, mps, a GPU's number (0), or several of them (0,1).")
    if not count:
        raise UserError(f"Device {text} is not here: PyTorch sees no CUDA device; take cpu or auto.")
    if max(chosen) >= count:
        shown = "one GPU, number 0" if count == 1 else f"{count} GPUs, numbers 0 to {count - 1}"
        what = (
            f"There is no GPU {max(chosen)}"
            if len(chosen) != world or world == 1
            else f"{world} processes are too many"
        )
        raise UserError(f"{what}: PyTorch sees {shown}.")
    if len(chosen) != world:
        raise UserError(_processes_missing(text, len(chosen), world))
    return torch.device("cuda", chosen[rank])


def processor() -> str:
    """The processor's name and the fast arithmetic it has: "Intel(R) Xeon(R) Processor (AVX2, AVX-512, VNNI)"."""
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
    """Channels of fp32 that runtimes lay side by side here: 16 with AVX-512, 8 with AVX2 or NEON and elsewhere."""
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
    """The sentence for a list of GPUs that does not fit the number of processes."""
    if world > 1:
        return f"Device {text} names {devices} of the GPUs, but torchrun started {world} processes; name one for each."
    program = Path(sys.argv[0])
    ours = program.stem == "secateur" or program.parent.name == "secateur"
    line = f"-m secateur {shlex.join(sys.argv[1:])}" if ours else shlex.join(sys.argv)
    return f"Device {text} names {devices} GPUs, one process each: torchrun --nproc_per_node {devices} {line}"


def _affinity() -> set[int]:
    """Numbers of the logical processors that this process may run on."""
    if sys.platform != "linux":
        return set(range(os.cpu_count() or 1))
    return os.sched_getaffinity(0)


def _one_a_core(cpus: set[int]) -> list[int]:
    """The first logical processor of every core, then the other ones."""
    firsts: dict[str, int] = {}
    for cpu in sorted(cpus):
        try:
            core = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(cpu)
        firsts.setdefault(core, cpu)
    return [*firsts.values(), *sorted(cpus - set(firsts.values()))]


def _bind(cpus: tuple[int, ...]) -> None:
    """Lets all threads that the process has run on these processors only; later ones do as their makers."""
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cpus)
        except OSError:  # the thread has ended, or the container forbids it
            continue


def _within_quota(cpus: int, root: Path) -> int:
    """At most as many as the control groups' time suffices for, rounded down: a throttled thread holds up the rest."""
    quota = _quota(root)
    return max(1, cpus if quota is None else min(cpus, int(quota)))


def _quota(root: Path) -> float | None:
    """Processors' worth of time that the control groups (version 1 or 2) of this process grant; None: no limit."""
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
            # The limits of all groups above hold too; inside a container only the top may be there to be read.
            place = top / path.lstrip("/")
            for folder in (place, *place.parents):
                if folder.is_relative_to(top):
                    found += _limit(folder)
    return min(found, default=None)


def _limit(folder: Path) -> list[float]:
    """The limit that one control group states, if any."""
    try:
        if (folder / "cpu.max").is_file():
            time, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            time, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(time) / int(period)] if time != "max" and int(time) > 0 else []
    except (OSError, ValueError):
        return []
