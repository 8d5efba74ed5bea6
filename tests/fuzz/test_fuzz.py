"""Damaged files are read, or refused in a sentence: some cases a reader; `make fuzz` runs as many as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fuzz_campaign
import fuzz_readers
import pytest
from fuzz_campaign import Case, campaign, table
from fuzz_readers import READERS, Bases, Reader, make_bases

from secateur.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cases are forked, under limits that Linux keeps")

CASES = 100


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused(reader: str, bases: Bases) -> None:
    outcomes = list(campaign([Case(reader, seed) for seed in range(CASES)], bases))
    assert len(outcomes) == CASES
    assert [outcome for outcome in outcomes if not outcome.fine] == [], table(outcomes)
    assert any(outcome.end == "refused" for outcome in outcomes)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_damaged_is_read(reader: str, bases: Bases, tmp_path: Path) -> None:
    for name, content in bases.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    READERS[reader].read(tmp_path / READERS[reader].file)


def test_a_case_is_the_same_every_time(bases: Bases) -> None:
    for reader in READERS:
        assert Case(reader, 3).content(bases) == Case(reader, 3).content(bases)
        assert len({Case(reader, seed).content(bases) for seed in range(20)}) > 10


def _refuses(words: str) -> Callable[[Path], object]:
    def read(file: Path) -> None:
        raise UserError(words)

    return read


@pytest.mark.parametrize(
    ("read", "end"),
    [
        (lambda file: file.read_bytes(), "read"),
        (_refuses("It is broken."), "refused"),
        (_refuses("It is broken.\nReally."), "sentence"),
        (_refuses("x" * 301), "sentence"),
        (lambda file: int("x"), "traceback"),
        (lambda file: sys.exit(0), "traceback"),
        (lambda file: bytearray(3 * 2**30), "memory"),
        (lambda file: os.abort(), "crash"),
        (lambda file: time.sleep(30), "time"),
        (lambda file: exec("x = 1"), "event"),
        (lambda file: eval(compile("1 + 1", "<file>", "eval")), "event"),
        (lambda file: os.system("true"), "event"),
        (lambda file: subprocess.run(["true"], check=False), "event"),
        (lambda file: (file.parents[2] / "outside").write_text("x"), "event"),
        (lambda file: (file.parent / "inside").write_text("x"), "read"),
        (lambda file: (file.parent / "link").symlink_to("/etc/passwd"), "read"),
        (lambda file: (file.parents[2] / "link").symlink_to(file), "event"),
        (lambda file: file.rename(file.parents[2] / "outside"), "event"),
        (lambda file: __import__("socket").create_connection(("127.0.0.1", 9)), "event"),
    ],
)
def test_the_hook_and_the_limits_see_it(
    read: Callable[[Path], object], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_campaign, "SECONDS", 1.0)
    monkeypatch.setitem(fuzz_readers.READERS, "own", Reader("own.bin", (lambda rng, data: data,), read))
    both = list(campaign([Case("own", 0), Case("own", 1)], {"own.bin": b"sound"}))
    assert [outcome.end for outcome in both] == [end, end]


def test_the_program_for_long_runs_takes_no_threads_into_its_children(tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    words = [sys.executable, str(Path(__file__).parent), "-n", "4", "--reader", "pt", "--reader", "torchscript"]
    ran = subprocess.run([*words, "--keep", str(tmp_path)], env=plain, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "torchscript" in ran.stdout.splitlines()[-1]
