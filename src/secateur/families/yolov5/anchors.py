"""AutoAnchor: measures how many boxes the anchors can match, and evolves new anchors if they match too few."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.data.index import Index
from secateur.errors import UserError
from secateur.families.yolov5.model import Detector

ENOUGH = 0.98  # best possible recall at which the current anchors are kept
SMALLEST = 2.0  # pixels; smaller boxes and anchors are noise
GENERATIONS = 1000
SAMPLE = 20_000  # number of boxes used for the evolution; the final recall uses all boxes
Array = NDArray[np.float64]


@dataclass(frozen=True)
class AnchorReport:
    """Best possible recall before and after (equal if nothing changed), and anchors in pixels [nl][na][2].

    `pending` marks placeholder anchors before, which the model file leaves to be computed.
    """

    before: float
    after: float
    changed: bool
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    pending: bool = False

    def __str__(self) -> str:
        if self.pending:
            count = f"{len(self.anchors[0])} a level on {len(self.anchors)} levels"
            return f"AutoAnchor: computed {count}, as the model file requests; best possible recall {self.after:.4f}."
        if not self.changed:
            kept = "" if self.before > ENOUGH else ", because evolution found no better ones"
            return f"AutoAnchor: best possible recall {self.before:.4f}; anchors kept{kept}."
        return f"AutoAnchor: best possible recall {self.before:.4f} -> {self.after:.4f} with new anchors."


def box_sizes(index: Index, image_size: int) -> Array:
    """Widths and heights, float64 [m, 2] in pixels, of all labels, with images scaled to a longer side of
    `image_size`."""
    shapes = np.asarray(index.shapes, np.float64)[:, ::-1]  # (w, h)
    scaled = image_size * shapes / np.maximum(shapes.max(1, keepdims=True), 1)
    return np.repeat(scaled, np.diff(index.offsets), axis=0) * np.asarray(index.labels, np.float64)[:, 3:5]


def closeness(sizes: Array, anchors: Array) -> Array:
    """Similarity of every box to its best anchor, float64 [m] in 0..1: the worse of the two side ratios.

    Args:
        sizes: widths and heights [m, 2].
        anchors: widths and heights [n, 2].
    """
    best: Array = np.zeros(len(sizes))
    for anchor in anchors:
        ratio = sizes / anchor
        np.maximum(best, np.minimum(ratio, 1 / ratio).min(1), out=best)
    return best


def best_possible_recall(sizes: Array, anchors: Array, anchor_t: float) -> float:
    """Share of boxes [m, 2] that at least one anchor [n, 2] matches within the ratio `anchor_t`."""
    return float((closeness(sizes, anchors) > 1 / anchor_t).mean()) if len(sizes) else 1.0


def k_means(points: Array, count: int, generator: np.random.Generator, iterations: int = 30) -> Array:
    """Lloyd's algorithm: `count` centres of points [m, 2]; an empty cluster restarts at the farthest point."""
    centres = points[generator.choice(len(points), count, replace=len(points) < count)]
    for _ in range(iterations):
        distance = ((points[:, None] - centres[None]) ** 2).sum(2)
        nearest = distance.argmin(1)
        moved = centres.copy()
        for i in range(count):
            mine = points[nearest == i]
            moved[i] = mine.mean(0) if len(mine) else points[distance.min(1).argmax()]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def evolve(sizes: Array, anchors: Array, anchor_t: float, generator: np.random.Generator) -> Array:
    """Mutates anchors [n, 2] and keeps mutations that raise the mean closeness of the matched boxes [m, 2]."""

    def fitness(candidate: Array) -> float:
        close = closeness(sizes, candidate)
        return float((close * (close > 1 / anchor_t)).mean())

    best, score = anchors, fitness(anchors)
    for _ in range(GENERATIONS):
        while True:
            mutate = generator.random(anchors.shape) < 0.9
            strength = generator.random() * 0.1
            factor = (mutate * strength * generator.standard_normal(anchors.shape) + 1).clip(0.3, 3.0)
            if (factor != 1).any():
                break
        candidate = (best * factor).clip(min=SMALLEST)
        if (value := fitness(candidate)) > score:
            best, score = candidate, value
    return best


def fit_anchors_(detector: Detector, index: Index, image_size: int, anchor_t: float, seed: int = 0) -> AnchorReport:
    """Checks the anchors of the detector against the labels, and replaces them if the recall is too low.

    Only the `anchors` buffer of the head (in strides) changes; small anchors belong to the level with the smallest
    stride. If the model file leaves the anchors to be computed, they are always replaced, and stored in the topology.

    Raises:
        UserError: anchors must be computed, and there are no boxes.
    """
    buffer = detector.head.anchors
    strides = np.asarray(detector.strides, np.float64)
    present = buffer.detach().cpu().double().numpy() * strides[:, None, None]
    generator = np.random.default_rng(seed)
    sizes = box_sizes(index, image_size)
    # Training scales images randomly; 10 % up or down is a fair sample of that.
    sizes = sizes * generator.uniform(0.9, 1.1, (len(sizes), 1))
    sizes = sizes[(sizes > 0).all(1)]
    before = best_possible_recall(sizes, present.reshape(-1, 2), anchor_t)
    large = sizes[(sizes >= SMALLEST).any(1)]
    pending = detector.topology.anchors_pending
    if pending and not len(large):
        raise UserError(
            "The model file leaves the anchors to be computed, but the training images have no boxes. Write "
            "the anchors into the model file, or label the images."
        )
    if pending or (before <= ENOUGH and len(large) > 1):
        if len(large) > SAMPLE:
            large = large[generator.choice(len(large), SAMPLE, replace=False)]
        spread = np.maximum(large.std(0), 1e-9)
        count = buffer.shape[0] * buffer.shape[1]
        found = k_means(large / spread, count, generator) * spread
        found = evolve(large, found.clip(min=SMALLEST), anchor_t, generator)
        after = best_possible_recall(sizes, found, anchor_t)
        if pending or after > before:
            found = found[found.prod(1).argsort()].reshape(present.shape)
            arranged = np.empty_like(found)
            arranged[strides.argsort()] = found
            with torch.no_grad():
                buffer.copy_(torch.from_numpy(arranged / strides[:, None, None]))
            if pending:
                rows = tuple(tuple(map(float, level.ravel())) for level in arranged)
                detector.topology = replace(detector.topology, anchors=rows, anchors_pending=False)
            return AnchorReport(before, after, True, _plain(arranged), pending)
    return AnchorReport(before, before, False, _plain(present))


def _plain(anchors: Array) -> tuple[tuple[tuple[float, float], ...], ...]:
    return tuple(tuple((float(width), float(height)) for width, height in level) for level in anchors)
