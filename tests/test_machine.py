"""Cores that are granted, devices by their words, the processor's name."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur import machine
from secateur.errors import UserError


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up computer of four cores with two hyper-threads each, without limits."""
    monkeypatch.setattr(machine, "_affinity", lambda: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cpu in range(8):
        place = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    return tmp_path


def group(computer: Path, line: str, files: dict[str, str]) -> None:
    (computer / "proc/self").mkdir(parents=True)
    (computer / "proc/self/cgroup").write_text(line + "\n")
    for name, text in files.items():
        file = computer / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_hyper_threads_count_as_processors_and_not_as_cores(computer: Path) -> None:
    assert machine.granted_cpus(computer) == 8
    assert machine.cpu_threads(computer) == 4


@pytest.mark.parametrize(("quota", "threads"), [("max", 4), ("200000", 2), ("250000", 2), ("50000", 1)])
def test_quota_of_control_groups_2(computer: Path, quota: str, threads: int) -> None:
    group(computer, "0::/a/b", {"cpu.max": "max 100000\n", "a/cpu.max": f"{quota} 100000\n"})
    assert machine.cpu_threads(computer) == threads


@pytest.mark.parametrize("folder", ["cpu/docker/x", "cpu", "cpu,cpuacct/docker"])
def test_quota_of_control_groups_1(computer: Path, folder: str) -> None:
    files = {f"{folder}/cpu.cfs_quota_us": "300000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    group(computer, "4:memory:/docker/x\n2:cpu,cpuacct:/docker/x", files)
    assert machine.cpu_threads(computer) == machine.granted_cpus(computer) == 3


def test_no_limit_in_control_groups_1(computer: Path) -> None:
    group(computer, "2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert machine.granted_cpus(computer) == 8


def test_the_number_that_the_user_set_is_not_exceeded(computer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.cpu_threads(computer) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert machine.cpu_threads(computer) == 4


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_one_granted_core_means_one_thread() -> None:
    cpu = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}}); os.environ.pop('OMP_NUM_THREADS', None); "
        "import sys; from secateur import machine; assert 'torch' not in sys.modules; "
        "print(machine.use_threads(), machine.granted_cpus())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1 1\n"


def test_a_process_is_kept_on_as_many_processors_as_it_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[set[int]] = []
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine.os, "sched_setaffinity", lambda pid, cpus: bound.append(set(cpus)), raising=False)
    with pytest.raises(KeyError), machine.pinned(2) as places:
        assert len(set(places)) == 2 and bound and all(cpus == set(places) for cpus in bound)
        raise KeyError
    assert bound[-1] == {0, 1, 2, 3}
    count = len(bound)
    for threads in (0, 4, 5):
        with machine.pinned(threads) as places:
            assert places == ()
    assert len(bound) == count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the habit is that of glibc's allocator")
def test_memory_that_is_not_in_use_goes_back() -> None:
    code = """
from secateur.machine import return_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
blocks = [bytearray(100_000) for _ in range(2_000)]
last = bytearray(100_000)
before = resident()
del blocks
return_memory()
print(before - resident() > 150_000_000)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def missing(name: None) -> object:
    raise OSError("no such library")


@pytest.mark.parametrize("library", [missing, lambda name: object()])
def test_elsewhere_the_call_is_looked_for_and_left(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    asked: list[None] = []
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: (asked.append(name), library(name))[1])
    machine.return_memory()
    assert asked == [None]


@pytest.mark.skipif(sys.platform != "linux", reason="the stack is that of Linux")
def test_signals_are_handled_where_they_were_before() -> None:
    system, other = ctypes.CDLL(None), ctypes.create_string_buffer(1 << 16)

    def place() -> tuple[int | None, int, int]:
        now = machine.SignalStack()
        assert system.sigaltstack(None, ctypes.byref(now)) == 0
        return now.ss_sp, now.ss_flags, now.ss_size

    def move() -> None:
        mine = machine.SignalStack(ctypes.addressof(other), 0, len(other))
        assert system.sigaltstack(ctypes.byref(mine), None) == 0

    before = place()
    with machine.signal_stack_kept():
        move()
        assert place() == (ctypes.addressof(other), 0, len(other)) != before
    assert place() == before
    with pytest.raises(KeyError), machine.signal_stack_kept():
        move()
        raise KeyError
    assert place() == before


def test_threads_by_number() -> None:
    before = torch.get_num_threads()
    try:
        assert machine.use_threads(2) == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(UserError, match="threads"):
        machine.use_threads(-1)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    def pretend(count: int, rank: int | None = None, world: int = 1) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        for name, value in (("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", world if rank is not None else None)):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, str(value))

    return pretend


def test_devices_by_their_words(gpus) -> None:
    gpus(0)
    assert machine.pick_device() == machine.pick_device("") == machine.pick_device("CPU") == torch.device("cpu")
    gpus(2)
    assert machine.pick_device("auto") == machine.pick_device("cuda") == torch.device("cuda:0")
    assert machine.pick_device("1") == machine.pick_device("cuda:1") == torch.device("cuda:1")
    assert machine.pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_has_its_own_gpu(gpus, rank: int) -> None:
    gpus(4, rank, 2)
    assert machine.pick_device("auto") == torch.device("cuda", rank)
    assert machine.pick_device("2,3") == machine.pick_device("cuda:2,3") == torch.device("cuda", rank + 2)


@pytest.mark.parametrize(
    ("count", "rank", "world", "text", "words"),
    [
        (0, None, 1, "0", "no CUDA device"),
        (0, None, 1, "cuda", "no CUDA device"),
        (1, None, 1, "1", r"There is no GPU 1: PyTorch finds one GPU"),
        (2, None, 1, "cuda:7", "There is no GPU 7: PyTorch finds 2 GPUs, numbers 0 to 1"),
        (2, None, 1, "tpu", "Unknown device 'tpu'"),
        (2, None, 1, "0;1", "Unknown device"),
        (4, 0, 2, "1", "names 1 GPUs, but torchrun started 2 processes"),
        (1, 1, 2, "auto", "2 processes are too many"),
    ],
)
def test_devices_that_cannot_be_taken(gpus, count, rank, world, text, words) -> None:
    gpus(count, rank, world)
    with pytest.raises(UserError, match=words):
        machine.pick_device(text)


def test_several_gpus_without_torchrun_are_answered_with_the_line_to_write(gpus, monkeypatch) -> None:
    gpus(2)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/secateur", "train", "--data", "my data.yaml", "--device", "0,1"])
    with pytest.raises(UserError) as caught:
        machine.pick_device("0,1")
    line = "torchrun --nproc_per_node 2 -m secateur train --data 'my data.yaml' --device 0,1"
    assert str(caught.value).endswith(line)


def test_no_apple_device_here(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="mps"):
        machine.pick_device("mps")


def test_the_processor_has_a_name() -> None:
    assert machine.processor().strip() and "\n" not in machine.processor()
