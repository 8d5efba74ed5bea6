"""Tests neither see nor fill the folder from which they are run, nor the caches of whoever runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import secateur
from working_folder import REPOSITORY, STARTED_IN, entries


@pytest.fixture(scope="module")
def folder_of_the_module() -> Path:
    return Path.cwd()


def test_each_test_has_a_folder_of_its_own(tmp_path: Path, folder_of_the_module: Path) -> None:
    assert Path.cwd() == tmp_path and list(tmp_path.iterdir()) == []
    for folder in (folder_of_the_module, cache := Path(os.environ["XDG_CACHE_HOME"])):
        assert not {STARTED_IN, REPOSITORY} & {folder, *folder.parents}
    assert cache != Path.home() / ".cache"


def test_programs_that_tests_start_import_the_same_package() -> None:
    script = [sys.executable, "-c", "import secateur; print(secateur.__file__)"]
    ran = subprocess.run(script, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == secateur.__file__


def test_files_that_a_test_leaves_are_found(tmp_path: Path) -> None:
    for name in ("tests/deploy/test_a.py", "tests/__pycache__/a.pyc", ".pytest_cache/v", "runs/run/best", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = entries(tmp_path)
    (tmp_path / ".hypothesis").mkdir()
    assert entries(tmp_path) == before
    left = {tmp_path / name for name in ("x.onnx", "tests/y", "tests/deploy/z.npz", "runs/run2")}
    for file in left:
        file.touch()
    assert entries(tmp_path) - before == left
