"""Compares composed mosaics with the usual method on a canvas of twice the size. One process, no workers.

The usual method is implemented below: decode, resize to the image size, paste four images on a grey canvas of twice
that size, warp and crop, HSV gains, flip. Both methods draw from the same distributions, with the default augmentation
of YOLOv5's hyp files (scale 0.5, translate 0.1, HSV, left-right flip). Four questions, one row each:

    warp      images decoded and resized in advance; only the image (canvas + warp against composed tiles)
    sample    images in memory; complete samples (image, boxes, HSV, flip) from __getitem__
    disk      no cache: every tile is read and decoded. The composed loader decodes JPEG at 1/2, 1/4 or 1/8 if an image
              is that much larger than the image size; the usual method decodes at full size
    training  the first epoch with the defaults of each: the usual loader reads every tile from disk, ours caches
              images that fit in memory after the first read

    python benchmarks/mosaic_loader.py [--data data.yaml] [--image-size 640] [--rounds 7] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from secateur.data.augment import Augmentation, random_view
from secateur.data.config import load_data_config
from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index, scan
from secateur.data.mosaic import compose, mosaic_tiles, snapped
from secateur.data.synthetic import generate

HOW = Augmentation()
Image = np.ndarray


class DoubleCanvas:
    """The usual loader: __getitem__ returns an RGB image uint8 [side, side, 3] and normalised labels."""

    def __init__(self, index: Index, side: int, keep: bool) -> None:
        self.index, self.side, self.keep = index, side, keep
        self.images: dict[int, Image] = {}

    def read(self, i: int) -> Image:
        if i in self.images:
            return self.images[i]
        image = cv2.imread(self.index.files[i])
        ratio = self.side / max(image.shape[:2])
        if ratio != 1:
            size = math.ceil(image.shape[1] * ratio), math.ceil(image.shape[0] * ratio)
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        if self.keep:
            self.images[i] = image
        return image

    def __getitem__(self, key: tuple[int, int]) -> tuple[Image, Image]:
        rng = np.random.default_rng(np.random.SeedSequence([0, *key]))
        side = self.side
        chosen = [key[1], *rng.integers(len(self.index), size=3).tolist()]
        rng.shuffle(chosen)
        cx, cy = (int(v) for v in rng.uniform(0.5 * side, 1.5 * side, 2))
        canvas = np.full((2 * side, 2 * side, 3), 114, np.uint8)
        rows = []
        for place, i in enumerate(chosen):
            image = self.read(i)
            left, top = paste(canvas, image, place, cx, cy)
            label = self.index.labels_of(i)
            height, width = image.shape[:2]
            corners = np.concatenate([label[:, 1:3] - label[:, 3:] / 2, label[:, 1:3] + label[:, 3:] / 2], 1)
            rows.append(np.column_stack([label[:, 0], corners * ((width, height) * 2) + ((left, top) * 2)]))
        view, gain = random_view(rng, HOW, canvas.shape[:2], (side, side))
        out = cv2.warpAffine(canvas, view[:2], (side, side), borderValue=(114, 114, 114))
        labels = boxes(np.concatenate(rows), view, gain, side)
        gains = rng.uniform(-1, 1, 3) * (HOW.hsv_h, HOW.hsv_s, HOW.hsv_v) + 1
        x = np.arange(256)
        tables = [x * gains[0] % 180, np.clip(x * gains[1], 0, 255), np.clip(x * gains[2], 0, 255)]
        planes = cv2.split(cv2.cvtColor(out, cv2.COLOR_BGR2HSV))
        planes = [cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(planes, tables, strict=True)]
        out = cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2RGB)
        if rng.random() < HOW.fliplr:
            out = cv2.flip(out, 1)
            labels[:, 1] = 1 - labels[:, 1]
        return out, labels


def paste(canvas: Image, image: Image, place: int, cx: int, cy: int) -> tuple[int, int]:
    """Pastes one of four images (uint8 [H, W, 3]) at its corner of the centre, clipped to the canvas; returns the
    position of its first pixel.
    """
    height, width = image.shape[:2]
    left, top = cx if place % 2 else cx - width, cy if place >= 2 else cy - height
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    canvas[y0:y1, x0:x1] = image[y0 - top : y1 - top, x0 - left : x1 - left]
    return left, top


def boxes(rows: Image, view: Image, gain: float, side: int) -> Image:
    """Converts boxes on the canvas, float [n, 5] (class, xyxy), to the kept output rows [m, 5] (class, xywh
    normalised).
    """
    old = rows[:, 1:].clip(0, 2 * side)
    corners = np.column_stack([old[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 2), np.ones(4 * len(old))])
    moved = (corners @ view.T)[:, :2].reshape(-1, 4, 2)
    new = np.concatenate([moved.min(1), moved.max(1)], 1).clip(0, side)
    w, h = new[:, 2] - new[:, 0], new[:, 3] - new[:, 1]
    area = ((old[:, 2] - old[:, 0]) * (old[:, 3] - old[:, 1])) * gain**2
    keep = (w > 2) & (h > 2) & (w * h > 0.1 * area)
    middle = (new[:, :2] + new[:, 2:]) / 2
    return np.column_stack([rows[:, 0], middle / side, w / side, h / side])[keep]


def warp_pair(index: Index, side: int) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """Image n by both methods, from the same cached images, tiles and view."""
    reader = DoubleCanvas(index, side, keep=True)
    for i in range(len(index)):
        reader.read(i)
    plans = []
    for n in range(64):
        rng = np.random.default_rng(n)
        chosen = rng.integers(len(index), size=4).tolist()
        centre = tuple(int(v) for v in rng.uniform(0.5 * side, 1.5 * side, 2))
        plans.append((chosen, centre, random_view(rng, HOW, (2 * side, 2 * side), (side, side))[0]))

    def usual(n: int) -> Image:
        chosen, (cx, cy), view = plans[n % 64]
        canvas = np.full((2 * side, 2 * side, 3), 114, np.uint8)
        for place, i in enumerate(chosen):
            paste(canvas, reader.read(i), place, cx, cy)
        return cv2.warpAffine(canvas, view[:2], (side, side), borderValue=(114, 114, 114))

    def composed(n: int) -> Image:
        chosen, centre, view = plans[n % 64]
        tiles = mosaic_tiles(chosen, [reader.read(i).shape[:2] for i in chosen], centre, side)
        return compose(tiles, reader.read, snapped(view, centre), (side, side))

    return usual, composed


def pairs(index: Index, side: int) -> dict[str, tuple[Callable[[int], object], Callable[[int], object]]]:
    """For each question, the usual method and ours, as functions of a running number."""
    n = len(index)
    kept = DoubleCanvas(index, side, keep=True), DetectionDataset(index, side, augmentation=HOW, cache_images="ram")
    fresh = DoubleCanvas(index, side, keep=False), DetectionDataset(index, side, augmentation=HOW, cache_images=False)
    for i in range(n):
        kept[0].read(i)
        kept[1][0, i]  # reads its four tiles

    current = [fresh[1]]

    def ours_by_default(number: int) -> object:
        if number % n == 0:  # every epoch starts with an empty cache
            current[0] = DetectionDataset(index, side, augmentation=HOW)
        return current[0][number // n, number % n]

    def by_number(source: DoubleCanvas | DetectionDataset) -> Callable[[int], object]:
        return lambda number: source[number // n, number % n]

    return {
        "warp": warp_pair(index, side),
        "sample": (by_number(kept[0]), by_number(kept[1])),
        "disk": (by_number(fresh[0]), by_number(fresh[1])),
        "training": (by_number(fresh[0]), ours_by_default),
    }


def measure(ways: tuple[Callable[[int], object], ...], rounds: int, samples: int) -> tuple[list[float], list[float]]:
    """ms per sample for both methods, one value per round. The methods alternate, as does their order."""
    times: tuple[list[float], list[float]] = [], []
    for turn in range(rounds + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            begin = time.perf_counter()
            for number in range(samples):
                ways[which](turn * samples + number)
            if turn:  # round 0 warms up
                times[which].append((time.perf_counter() - begin) / samples * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data.yaml; the default generates 1280-pixel images")
    parser.add_argument("--split", default="train")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=128, help="samples per round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or generate(folder, (64, 0, 0), 1280)
        index = scan(load_data_config(data), options.split, progress=False)
        result = {}
        print(
            f"{len(index)} images, mosaics of {options.image_size} px, {options.rounds} rounds; median ms per sample\n"
        )
        print(f"{'':10}{'double canvas':>15}{'composed':>12}{'faster':>10}")
        for name, ways in pairs(index, options.image_size).items():
            samples = len(index) if name == "training" else options.samples
            usual, ours = measure(ways, options.rounds, samples)
            ratio = statistics.median(a / b for a, b in zip(usual, ours, strict=True))
            row = {
                "double_canvas_ms": statistics.median(usual),
                "composed_ms": statistics.median(ours),
                "faster": ratio,
            }
            result[name] = row
            print(f"{name:10}{row['double_canvas_ms']:15.2f}{row['composed_ms']:12.2f}{ratio:9.2f}x", flush=True)
    if options.json:
        about = {"data": str(options.data or "generated"), "images": len(index), "image_size": options.image_size}
        about |= {"median_side": float(np.median(index.shapes.max(1))), "machine": platform.processor()}
        options.json.write_text(json.dumps(about | {"rows": result, "opencv": cv2.__version__}, indent=2) + "\n")


if __name__ == "__main__":
    main()
