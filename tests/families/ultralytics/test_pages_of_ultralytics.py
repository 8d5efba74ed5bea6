"""Commands and snippets of the pages on networks of Ultralytics, with small settings and a network of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import fresh, save

from page_commands import NAMES
from page_runs import Done, prepared, run_page

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = ("ultralytics.md", "how-to/ultralytics-models.md", "coming-from/ultralytics-tutorial.md")


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepared(tmp_path / "page")
    model = fresh("yolo11n")
    model.names = NAMES
    for name in ("best.pt", "yolo11n.pt", "pruned.pt"):
        save(model, folder / name)
    monkeypatch.chdir(folder)
    run_page(DOCS / page, Done(tmp_path / "done"), costly=True, ultralytics=True)
