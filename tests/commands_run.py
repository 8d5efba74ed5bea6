"""Command lines that the tests of whole commands begin with, and what a refused one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.cli import main


def sentence(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a command that must fail: exit code 2 and one sentence; returns it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert not list(Path("runs").rglob("*")) or not any(path.is_file() for path in Path("runs").rglob("*"))
    return lines[0]


def training(data: Path, cfg: Path) -> list[str]:
    return ["train", "--cfg", str(cfg), "--data", str(data), "--img", "64", "--epochs", "1", "--workers", "0"]


def pruning(weights: Path, data: Path, *budget: str) -> list[str]:
    start = ["prune", "--weights", str(weights), "--data", str(data), "--img", "64", "--workers", "0"]
    return [*start, "--round-to", "1", *budget]
