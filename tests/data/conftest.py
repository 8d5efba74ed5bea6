"""Small data sets made for the tests of the data package."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from pictures import MakeData, smooth_image


@pytest.fixture(autouse=True)
def _cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Writes a data set: `labels` is the text of each training image's label file (None: no file)."""

    def make(
        labels: list[str | None],
        names: str = "[a, b, c]",
        sizes: list[tuple[int, int]] | None = None,
        suffix: str = ".png",
    ) -> Path:
        for number, text in enumerate(labels):
            height, width = sizes[number] if sizes else (48, 64)
            image = tmp_path / "set" / "images" / "train" / f"{number:03d}{suffix}"
            image.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), smooth_image(height, width, number))
            if text is not None:
                label = tmp_path / "set" / "labels" / "train" / f"{number:03d}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(text)
        file = tmp_path / "set" / "data.yaml"
        file.write_text(f"train: images/train\nval: images/train\nnames: {names}\n")
        return file

    return make
