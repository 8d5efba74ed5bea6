"""The generated data set: valid, the same for the same seed, labels that fit what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from secateur.data.config import load_data_config
from secateur.data.index import scan
from secateur.data.synthetic import draw, generate
from secateur.errors import UserError


def test_generated_set_is_complete_and_clean(tmp_path: Path) -> None:
    config = load_data_config(generate(tmp_path, (30, 5, 5), 128, classes=5))
    assert list(config.splits) == ["train", "val", "test"]
    assert config.nc == 5
    index = scan(config, "train", progress=False)
    assert len(index) == 30
    assert index.counts.corrupt == index.counts.missing == 0
    assert not index.problems
    assert set(index.labels[:, 0]) == {0, 1, 2, 3, 4}
    assert index.shapes.max() == 128
    sides = index.labels[:, 3:]
    assert sides.max() < 0.8
    assert np.median(sides) > 0.12


def test_same_seed_same_pictures(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(tmp_path / name, (2, 0, 0), 96, seed=seed)
    first, second, third = ((tmp_path / name / "images/train/00001.jpg").read_bytes() for name in "abc")
    assert first == second != third


def test_boxes_lie_inside_the_picture() -> None:

    for seed in range(5):
        image, rows = draw(np.random.default_rng(seed), 200, 3)
        height, width = image.shape[:2]
        assert len(rows) >= 1
        for _, x, y, w, h in rows:
            assert x - w / 2 + 1e-9 >= 0
            assert x + w / 2 <= 1 + 1e-9
            assert y - h / 2 + 1e-9 >= 0
            assert y + h / 2 <= 1 + 1e-9
            assert min(w * width, h * height) >= 6


@pytest.mark.parametrize("options", [{"classes": 2}, {"classes": 99}, {"size": 10}, {"images": (0, 1, 1)}])
def test_bad_arguments(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="generated data set"):
        generate(tmp_path, **options)
    assert not list(tmp_path.iterdir())
