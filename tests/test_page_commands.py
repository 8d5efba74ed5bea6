"""Every command line and every Python snippet of the pages runs, with small settings, in the order of its page.

The settings that differ from the pages' are those of SMALLER and ADDED in tests/page_commands.py. Several processes
and GPUs are left out; tests/two_processes.py has them. Pages of results are only read (tests/test_docs.py).
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from latency_subjects import FAKE
from page_commands import SMALLER, SMALLER_CODE, Line, pieces
from page_runs import COSTLY, Done, prepared, run_page
from secateur.deploy.speed import latency_table
from secateur.deploy.timing import STOPWATCHES
from secateur.families.loading import load_checkpoint


def lines_of(page: Path) -> list[Line]:
    return [piece for piece in pieces(page.read_text()) if isinstance(piece, Line)]


ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "half-the-cost.ipynb"
# The page on extending has tests/test_extending.py; the tutorial and the README have tests of their own below.
ELSEWHERE = {"extending.md", "options.md", "tutorial.md", "README.md"}
PAGES = [
    page
    for page in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name not in ELSEWHERE and not page.name.startswith("results") and "results" not in page.parent.parts
]
WITH_COSTLY = [page for page in PAGES if COSTLY & {word for line in lines_of(page) for word in line.words}]


@pytest.fixture(scope="module")
def taken_for_granted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("granted") / "files")


@pytest.fixture
def folder(taken_for_granted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that the pages take for granted, and a clock of layers that is a formula."""
    place = shutil.copytree(taken_for_granted, tmp_path / "page")
    monkeypatch.chdir(place)
    monkeypatch.setattr(latency_table, "CUTS", 3)
    monkeypatch.setattr(latency_table, "simd_channels", lambda: 8)
    len(STOPWATCHES)  # finds those of the package, which would not replace this one
    monkeypatch.setitem(STOPWATCHES._methods, "onnx", FAKE)
    return place


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("done"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_snippets_of_a_page_run(page: Path, folder: Path, done: Done) -> None:
    run_page(page, done, costly=False)


@pytest.mark.parametrize("page", WITH_COSTLY, ids=lambda page: page.name)
def test_costly_commands_of_a_page_run(page: Path, folder: Path, done: Done) -> None:
    run_page(page, done, costly=True)


def test_the_tutorial_ends_with_half_the_network_and_boxes_on_a_video(folder: Path, done: Done) -> None:
    run_page(ROOT / "docs" / "tutorial.md", done, costly=True)
    dense, half = (load_checkpoint(file) for file in weights_of_the_tutorial())
    assert half.plan is not None
    assert half.plan["after"]["flops"] < half.plan["before"]["flops"]
    assert half.history[-1].verb == "finetune" and dense.history[-1].verb == "train"
    assert [file.name for file in Path("runs/predict").rglob("*.mp4")] == ["clip.mp4"]


def test_the_notebook_ends_with_a_smaller_network_and_boxes(folder: Path, done: Done) -> None:
    names = run_page(NOTEBOOK, done, costly=True)
    before, after = (names["half"].plan[when]["flops"] for when in ("before", "after"))
    assert after <= 0.51 * before
    assert names["found"].xyxy.shape[1] == 4
    assert list(Path("runs/predict/half").glob("*.jpg"))


def test_the_notebook_has_no_outputs_and_one_kind_of_code_a_cell() -> None:
    book = json.loads(NOTEBOOK.read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            commands = [line.startswith("!secateur ") for line in cell["source"]]
            assert all(commands) or not any(commands)


def weights_of_the_tutorial() -> tuple[Path, Path]:
    return Path("runs/train/dense/weights/best.safetensors"), Path("runs/finetune/half/weights/best.safetensors")


def test_the_readme_ends_in_a_detector(folder: Path, done: Done) -> None:
    names = run_page(ROOT / "README.md", done, costly=False)
    assert load_checkpoint("smaller.safetensors").history[-1].verb == "finetune"
    assert Path("smaller.onnx").is_file()
    assert names["found"].xyxy.shape[1] == 4
    plan = names["smaller"].plan
    assert plan["after"]["flops"] <= 0.51 * plan["before"]["flops"]


def test_smaller_settings_are_those_of_the_pages() -> None:
    """Every replacement still replaces something."""
    pages = [*PAGES, ROOT / "README.md", ROOT / "docs" / "tutorial.md"]
    texts = [page.read_text() for page in pages]
    assert not [there for there in SMALLER_CODE if not any(there in text for text in texts)]
    lines = [" ".join(line.words) for page in pages for line in lines_of(page)]
    assert not [pattern for pattern, _ in SMALLER if not any(re.search(pattern, line) for line in lines)]
