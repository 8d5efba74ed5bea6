"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from secateur.data.synthetic import generate
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.cliff import RUNGS, cliff
from slow_tests import is_slow
from tiny_network import TINY
from working_folder import REPOSITORY, STARTED_IN, entries

# Several test processes share the machine's cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Tests change the folder, and programs that they start look for the package from there.
if "PYTHONPATH" in os.environ:
    places = os.environ["PYTHONPATH"].split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(str(STARTED_IN / place) for place in places)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow tests, before those that are not asked for are left out."""
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _repository_stays_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures for several tests work in a temporary folder, with caches that the tests share; nothing new is left."""
    # What imports made stays to the end: no collection of garbage has to look through it again.
    gc.collect()
    gc.freeze()
    before = entries(REPOSITORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("session"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(os, "fsync", lambda _: None)  # no file of a test has to outlive a power cut
        yield
    left = sorted(str(entry) for entry in entries(REPOSITORY) - before)
    assert not left, f"tests left files in the repository: {', '.join(left)}"


@pytest.fixture(scope="session", autouse=True)
def _bare_commands() -> Iterator[None]:
    """Whole commands draw nothing, and their cliff curves have two rungs: both take longer than the rest of them.

    Plots are drawn in tests/report and, by the commands themselves, in tests/test_cli_grey.py; tests/pruning has the
    whole ladder.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.report.run_folder_plots.plots_available", lambda: False)
        patch.setattr("secateur.pruning.prune.cliff", partial(cliff, budgets=RUNGS[3::4]))
        yield


@pytest.fixture(autouse=True)
def _own_working_folder(_repository_stays_as_it_is: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in its own folder: commands write into runs/ of the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder with real data and checkpoints (`data/`, `weights/`, `reference/`); tests that need it skip without it.

    It is `$SECATEUR_REFERENCE`, or a folder `shared` beside the checkout.
    """
    folder = STARTED_IN / os.environ.get("SECATEUR_REFERENCE", REPOSITORY.parent / "shared")
    if not (folder / "weights").is_dir():
        pytest.skip("reference data and weights are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_cfg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cfg") / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("data") / "shapes", images=(24, 8, 8), size=64, classes=3)


@pytest.fixture(scope="session")
def tiny_weights(tiny_cfg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(tiny_cfg, nc=3), {0: "disc", 1: "square", 2: "triangle"})
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(Checkpoint.of(detector), file)
    return file


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches too are of this test alone; for tests of what is in them, or of what is measured anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
