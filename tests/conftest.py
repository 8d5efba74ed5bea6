"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Several test processes share the machine's cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder with real data and checkpoints (`data/`, `weights/`, `reference/`); tests that need it skip without it.

    It is `$SECATEUR_REFERENCE`, or a folder `shared` beside the checkout.
    """
    folder = Path(os.environ.get("SECATEUR_REFERENCE", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "weights").is_dir():
        pytest.skip("reference data and weights are not here")
    return folder
