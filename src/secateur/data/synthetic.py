"""Generates a detection data set of shapes on cluttered backgrounds, to try everything without own data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from secateur.data.config import SPLITS
from secateur.data.images import Image
from secateur.errors import UserError
from secateur.files import write_text

Points = NDArray[np.float64]
_LEAST_VISIBLE = 0.6  # minimum visible share of every object
_TRIES = 20


def _turn(corners: int) -> Points:
    angles = np.arange(corners) * 2 * math.pi / corners
    return np.column_stack([np.cos(angles), np.sin(angles)])


def _star() -> Points:
    return _turn(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]


def _cross() -> Points:
    arm = np.array([[1.0, -0.33], [1.0, 0.33], [0.33, 0.33]])
    turns = [np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in np.arange(4) * math.pi / 2]
    return np.concatenate([arm @ turn.T for turn in turns])


def _crescent() -> Points:
    outer = _turn(48)[6:43]
    inner = outer[::-1] * (0.55, 0.72) + (0.32, 0.0)
    return np.concatenate([outer, inner])


# Outline of each class in the unit circle, and its typical OpenCV hue (0 to 179).
SHAPES: dict[str, tuple[Callable[[], Points], int]] = {
    "disc": (lambda: _turn(48), 0),
    "square": (lambda: _turn(4), 110),
    "triangle": (lambda: _turn(3), 55),
    "star": (_star, 25),
    "cross": (_cross, 150),
    "crescent": (_crescent, 85),
}


@dataclass(frozen=True)
class _Object:
    shape: int
    mask: NDArray[np.bool_]  # its pixels in the image, including covered ones


def generate(
    out: str | Path, images: tuple[int, int, int] = (200, 60, 60), size: int = 320, classes: int = 4, seed: int = 0
) -> Path:
    """Draws `images` = (train, val, test) JPEG images with labels in `out` and returns the path of their data.yaml.

    Each image has one to six objects of `classes` shapes (3 to 6), with random size, rotation, stretch, shading,
    overlap and blur, in a jittered colour that correlates with the class, over gradients, noise and stripes with
    meaningless scribbles. `size` is the longer side in pixels. The same arguments give the same images.

    Raises:
        UserError: an argument is out of range, or the folder is not writable.
    """
    if not 3 <= classes <= len(SHAPES):
        raise UserError(f"A generated data set has 3 to {len(SHAPES)} classes, not {classes}.")
    if size < 64 or min(images) < 0 or not images[0]:
        raise UserError("A generated data set needs images of 64 pixels or more, and at least one to train on.")
    out = Path(out)
    for place, (split, count) in enumerate(zip(SPLITS, images, strict=True)):
        for number in range(count):
            rng = np.random.default_rng(np.random.SeedSequence([seed, place, number]))
            image, rows = draw(rng, size, classes)
            name = f"{split}/{number:05d}"
            _write(
                out / "images" / f"{name}.jpg", cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            )
            lines = (" ".join([str(int(row[0])), *(f"{value:.6f}" for value in row[1:])]) for row in rows)
            _write(out / "labels" / f"{name}.txt", "".join(f"{line}\n" for line in lines).encode())
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(list(SHAPES)[:classes]))
    splits = "".join(f"{split}: images/{split}\n" for split, count in zip(SPLITS, images, strict=True) if count)
    # Written last and atomically: an existing data.yaml means that the data set is complete.
    write_text(out / "data.yaml", f"# Generated shapes (seed {seed}).\npath: .\n{splits}names:\n{names}")
    return out / "data.yaml"


def draw(rng: np.random.Generator, size: int, classes: int) -> tuple[Image, NDArray[np.float64]]:
    """One image, BGR uint8 [H, W, 3] with longer side `size`, and its rows, float64 [k, 5] (class, xywh normalised)."""
    short = int(size * rng.choice([0.75, 1.0]))
    height, width = (size, short) if rng.random() < 0.3 else (short, size)
    image = _background(rng, height, width)
    _scribble(rng, image)
    objects: list[_Object] = []
    visible = np.full((height, width), -1, np.int16)  # number of the topmost object at each pixel
    for _ in range(int(rng.integers(1, 7))):
        _add_object(rng, image, objects, visible, classes)
    sigma = float(rng.uniform(0, 1.2)) * size / 320
    if sigma > 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    image += rng.normal(0, rng.uniform(0, 8), image.shape).astype(np.float32)
    rows = []
    for item in objects:
        columns, lines = np.flatnonzero(item.mask.any(0)), np.flatnonzero(item.mask.any(1))
        x0, x1, y0, y1 = columns[0], columns[-1] + 1, lines[0], lines[-1] + 1
        box = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
        rows.append([item.shape, *box])
    return image.clip(0, 255).astype(np.uint8), np.array(rows, np.float64).reshape(-1, 5)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}. Choose another folder.") from error


def _add_object(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    objects: list[_Object],
    visible: NDArray[np.int16],
    classes: int,
) -> None:
    """Draws one more object where every other object stays sufficiently visible; gives up after some attempts."""
    height, width = visible.shape
    for _ in range(_TRIES):
        shape = int(rng.integers(classes))
        outline, hue = list(SHAPES.values())[shape]
        radius = 0.5 * max(height, width) * rng.uniform(0.14, 0.42)
        centre = rng.uniform(0.04, 0.96, 2) * (width, height)
        angle, stretch = rng.uniform(0, 2 * math.pi), rng.uniform(0.8, 1.25)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        points = np.asarray((outline() * (stretch, 1 / stretch)) @ turn.T * radius + centre, np.float64)
        alpha = _coverage(points, height, width)
        mask = alpha > 0.5
        inside = mask.sum() / max(1.0, _area(points))
        if inside < 0.5 or not _leaves_enough(objects, visible, mask):
            continue
        image += alpha[..., None] * (_paint(rng, hue, height, width) - image)
        visible[mask] = len(objects)
        objects.append(_Object(shape, mask))
        return


def _leaves_enough(objects: list[_Object], visible: NDArray[np.int16], mask: NDArray[np.bool_]) -> bool:
    seen = (((visible == number) & ~mask).sum() / item.mask.sum() for number, item in enumerate(objects))
    return all(share >= _LEAST_VISIBLE for share in seen)


def _coverage(points: Points, height: int, width: int) -> NDArray[np.float32]:
    """Share of each pixel inside the outline, float32 [H, W] in 0..1."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 256).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=8)
    return np.asarray(mask / 255, np.float32)


def _area(points: Points) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _paint(rng: np.random.Generator, hue: int, height: int, width: int) -> NDArray[np.float32]:
    """A shaded colour field, float32 [H, W, 3], with a hue near that of the class, or sometimes a random one."""
    tone = rng.integers(180) if rng.random() < 0.1 else (hue + rng.normal(0, 10)) % 180
    hsv = np.array([[[tone, rng.uniform(130, 255), rng.uniform(120, 255)]]]).astype(np.uint8)
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
    return np.asarray(colour * (1 + slope[0] * x + slope[1] * y)[..., None], np.float32)


def _background(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Two dull colours, float32 [H, W, 3], mixed by a gradient, cloudy noise or stripes."""
    base, other = rng.uniform(50, 200) + rng.uniform(-25, 25, (2, 3)) + rng.uniform(-40, 40, (2, 1))
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    kind = int(rng.integers(3))
    if kind == 0:
        mix = (along + 1.5) / 3
    elif kind == 1:
        cells = int(rng.integers(4, 24))
        noise = cv2.resize(rng.random((cells, cells)), (width, height), interpolation=cv2.INTER_CUBIC)
        mix = np.asarray(noise, np.float64)
    else:
        mix = 0.5 + 0.4 * np.sin(along * rng.uniform(6, 40))
    return (base + mix[..., None] * (other - base)).astype(np.float32)


def _scribble(rng: np.random.Generator, image: NDArray[np.float32]) -> None:
    """Draws a few thin crooked lines and specks as distractors."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(0, 6))):
        steps = rng.normal(0, 0.12, (int(rng.integers(3, 9)), 2)).cumsum(0) + rng.random(2)
        points = np.round(steps * (width, height)).astype(np.int32)
        colour = tuple(float(v) for v in rng.uniform(30, 225, 3))
        cv2.polylines(image, [points], bool(rng.random() < 0.3), colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 12))):
        x, y = (int(v) for v in rng.random(2) * (width, height))
        cv2.circle(image, (x, y), int(rng.integers(1, 4)), tuple(float(v) for v in rng.uniform(30, 225, 3)), -1)
