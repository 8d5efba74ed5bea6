"""The page on adding methods: its files, taken as they stand, run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from secateur.detector.checkpoint import load_checkpoint
from secateur.registry import PLUGINS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
FILE = re.compile(r"^## [^\n]*`mine/(?P<name>[\w.]+)`\n(?:(?!```)[^\n]*\n)*?```\w+\n(?P<text>.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    for match in FILE.finditer(PAGE.read_text()):
        (folder / match["name"]).write_text(match["text"])
    return folder


def test_the_page_has_an_example_of_every_kind(folder: Path) -> None:
    kinds = re.findall(r"^\| .*? \| `(.*?)`", PAGE.read_text(), re.M)
    assert len(kinds) == 8
    assert len(list(folder.glob("*.py"))) == 7
    assert len(list(folder.glob("*.yaml"))) == 1


def test_the_examples_run_together(folder: Path, tiny_weights: Path, tiny_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "secateur", "run", "--recipe", str(folder / "mine.yaml"), "--json"]
    command += ["--weights", str(tiny_weights), "--data", str(tiny_data), "--project", str(tmp_path / "runs")]
    command += ["--img", "64", "--batch", "8", "--workers", "0", "--amp", "off"]
    environment = {**os.environ, PLUGINS: str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads(done.stdout)
    checkpoint = load_checkpoint(Path(summary["folder"]) / "final.safetensors")
    used = {key: value for stage in checkpoint.history for key, value in stage.settings.items()}
    recipe = yaml.safe_load((folder / "mine.yaml").read_text())
    for stage in recipe["stages"]:
        for name in ("schedule", "layer_score", "criterion", "pruning_pattern", "pruning_criterion", "distill"):
            wanted = next(iter(stage.values())).get(name)
            assert wanted is None or used[name] == wanted, name
    # Whole filters went.
    zeroed = [mask.flatten(1).any(1) for mask in checkpoint.masks.values()]
    assert any(not kept.all() for kept in zeroed)
    rows = (Path(summary["folder"]) / "finetune" / "results.csv").read_text().splitlines()
    assert "d_obj" in rows[0]


def test_without_them_the_names_are_unknown(folder: Path, tiny_weights: Path, tiny_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "secateur", "run", "--recipe", str(folder / "mine.yaml")]
    command += ["--weights", str(tiny_weights), "--data", str(tiny_data), "--project", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "Unknown schedule of the sparsity rate 'square'; choose one of constant, " in done.stderr
    assert not (tmp_path / "runs").exists()
