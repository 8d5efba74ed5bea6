"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml

from secateur.data.synthetic import generate
from secateur.detector.checkpoint import Checkpoint, save_checkpoint
from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from tiny_network import TINY

# Several test processes share the machine's cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder with real data and checkpoints (`data/`, `weights/`, `reference/`); tests that need it skip without it.

    It is `$SECATEUR_REFERENCE`, or a folder `shared` beside the checkout.
    """
    folder = Path(os.environ.get("SECATEUR_REFERENCE", Path(__file__).resolve().parents[2] / "shared"))
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
    """Commands write into runs/ of the current folder, and caches into the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
