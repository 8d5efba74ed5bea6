"""Small labelled data sets of every task in the formats of the package."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml
from ultralytics_subjects import NAMES, SIZE

POINTS = 17
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])


def labelled(task: str, folder: Path, images: int = 6) -> Path:
    """A data.yaml, or the folder of a classifier, whose images have one or two bright rectangles."""
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(images):
            image, rows = draw.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8), []
            for _ in range(1 + number % 2):
                low, sides = draw.uniform(0.05, 0.4, 2), draw.uniform(0.3, 0.5, 2)
                corners = low + CORNERS * sides
                first, last = (corners[[0, 2]] * SIZE).astype(int).tolist()
                cv2.rectangle(image, first, last, (200, 220, 240), -1)
                rows.append(f"{number % 3} {_numbers(task, low, sides, corners)}")
            _write(task, folder, split, number, image, rows)
    if task == "cls":
        return folder
    said = {"path": str(folder), "train": "images/train", "val": "images/val", "names": dict(NAMES)}
    (folder / "data.yaml").write_text(yaml.safe_dump(said | ({"kpt_shape": [POINTS, 3]} if task == "pose" else {})))
    return folder / "data.yaml"


def _numbers(task: str, low: np.ndarray, sides: np.ndarray, corners: np.ndarray) -> str:
    """The numbers of one label after its class."""
    box = [*(low + sides / 2), *sides]
    if task == "pose":
        box += [value for point in np.linspace(0, 1, POINTS) for value in (*(low + point * sides), 2)]
    return " ".join(f"{value:.6f}" for value in (box if task in ("pose", "box") else corners.reshape(-1)))


def _write(task: str, folder: Path, split: str, number: int, image: np.ndarray, rows: list[str]) -> None:
    """An image, and its labels or its class."""
    place = folder / (f"{split}/{NAMES[number % 3]}" if task == "cls" else f"images/{split}")
    place.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(place / f"{number}.png"), image)
    if task != "cls":
        (folder / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        (folder / f"labels/{split}/{number}.txt").write_text("\n".join(rows))
