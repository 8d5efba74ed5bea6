"""A split as a torch data set: letterboxed images for evaluation, composed and augmented images for training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from secateur.data.augment import (
    Augmentation,
    Floats,
    Matrix,
    colour_table,
    random_view,
    to_rgb,
    visible_enough,
    warp_boxes,
)
from secateur.data.images import Image, check_image_channels, read_image
from secateur.data.index import Index
from secateur.data.letterbox import letterboxed
from secateur.data.mosaic import GRAY, Tile, compose, mosaic_tiles, snapped
from secateur.data.paste import paste_copies
from secateur.data.store import ImageCache, SharedIndex

RatioPad = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Sample:
    """One network input: image uint8 [H, W, 3] RGB or [H, W, 1] grey; labels float32 [k, 5] (class, xywh normalised
    to the image); its index; original_shape (height, width) of the file; ratio_pad ((rh, rw), (pad_x, pad_y)):
    file * ratio + pad = input."""

    image: Image
    labels: Floats
    index: int
    original_shape: tuple[int, int]
    ratio_pad: RatioPad


@dataclass
class Batch:
    """images: uint8 [B, 3, H, W] RGB or [B, 1, H, W] grey; targets: float32 [T, 6] (image in batch, class, x, y, w,
    h normalised to the image); indices: position in the Index; original_shapes (h, w); ratio_pads as in `Sample`."""

    images: Tensor
    targets: Tensor
    indices: list[int]
    original_shapes: list[tuple[int, int]]
    ratio_pads: list[RatioPad]

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """The batch with its tensors in page-locked memory; DataLoader calls this method."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


class DetectionDataset(Dataset[Sample]):
    """Samples by image number, or by (epoch, image number) with an augmentation.

    A sample depends only on (seed, epoch, image number), not on the process or the order. With `rectangular`, images of
    similar aspect ratio form batches of `batch_size`, in `order`; each batch has its own smallest shape in multiples of
    `stride` plus `pad` strides, and there are no mosaics.

    Args:
        image_size: longer side of loaded images, and side of the square network input without rectangles; for
            evaluation also (height, width), into which images are fitted as for a prediction.
        cache_images: "ram" keeps decoded images in memory (shared by all workers, filled on first use); "auto" does so
            for training if they need at most 1 GiB and a quarter of the free memory. Samples do not depend on it.
        channels: 3, or 1 for a network for grey images.
    """

    def __init__(
        self,
        index: Index,
        image_size: int | tuple[int, int],
        *,
        augmentation: Augmentation | None = None,
        rectangular: bool = False,
        batch_size: int = 16,
        stride: int = 32,
        pad: float = 0.5,
        seed: int = 0,
        cache_images: bool | Literal["ram", "auto"] = "auto",
        channels: int = 3,
    ) -> None:
        check_image_channels(channels)
        self.index: Index | None = index
        self._shape = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size = max(self._shape)
        self._oblong = min(self._shape) != self.image_size
        if self._oblong and (augmentation is not None or rectangular):
            raise ValueError(
                f"images of training and of rectangular batches start from a square, not from {self._shape}"
            )
        self.augmentation = augmentation
        self.rectangular = rectangular
        self.batch_size = batch_size
        self.seed = seed
        self.channels = channels
        self.order = np.arange(len(index), dtype=np.int64)
        self._items = SharedIndex(index)
        self._shape_of: NDArray[np.int64] | None = None
        if rectangular:
            self.order, self._shape_of = _rectangles(index.shapes, self.image_size, batch_size, stride, pad)
        # A mosaic needs every image four times per epoch; evaluation reads each once, so it must request a cache.
        wish = False if self._oblong or (cache_images == "auto" and augmentation is None) else cache_images
        sizes = [self._stored_size(shape) for shape in index.shapes] if wish else []
        self._cache = ImageCache.choose(wish, sizes, channels)

    def __len__(self) -> int:
        return len(self._items)

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is started instead of forked gets the shared tensors and needs no copy of the index.
        return {**self.__dict__, "index": None, "_cache": None}

    def canvas(self, i: int) -> tuple[int, int]:
        """Size (height, width) of the network input for image i."""
        if self._shape_of is None:
            return self._shape
        return int(self._shape_of[i, 0]), int(self._shape_of[i, 1])

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, i = key if isinstance(key, tuple) else (0, key)
        if self.augmentation is None:
            return self._plain(i)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, i]))
        image, labels = self._augmented(i, rng, self.augmentation)
        image = to_rgb(image, colour_table(rng, self.augmentation))
        upside_down, mirrored = rng.random(2) < (self.augmentation.flipud, self.augmentation.fliplr)
        if upside_down or mirrored:
            image = np.asarray(cv2.flip(image, {(1, 0): 0, (0, 1): 1, (1, 1): -1}[int(upside_down), int(mirrored)]))
        height, width = image.shape[:2]
        labels = _normalised(labels, height, width)
        if mirrored:
            labels[:, 1] = 1 - labels[:, 1]
        if upside_down:
            labels[:, 2] = 1 - labels[:, 2]
        return Sample(np.atleast_3d(image), labels, i, self._items.shape(i), ((1.0, 1.0), (0.0, 0.0)))

    # Evaluation -------------------------------------------------------------------------------------------------------

    def _plain(self, i: int) -> Sample:
        """Letterboxed: longer side to the image size, then centred on grey (shrunk again if the canvas is smaller)."""
        if self._oblong:
            return self._fitted(i)
        original = self._items.shape(i)
        image = self._read(i)
        loaded = self._loaded_size(original)
        if image.shape[:2] != loaded:
            image = np.asarray(cv2.resize(image, loaded[::-1], interpolation=cv2.INTER_LINEAR))
        canvas = self.canvas(i)
        ratio = min(canvas[0] / loaded[0], canvas[1] / loaded[1], 1.0)
        inner = round(loaded[0] * ratio), round(loaded[1] * ratio)
        if inner != loaded:
            image = np.asarray(cv2.resize(image, inner[::-1], interpolation=cv2.INTER_LINEAR))
        pad_y, pad_x = (canvas[0] - inner[0]) / 2, (canvas[1] - inner[1]) / 2
        top, left = round(pad_y - 0.1), round(pad_x - 0.1)
        out = np.full((*canvas, self.channels), GRAY, np.uint8)
        out[top : top + inner[0], left : left + inner[1]] = np.atleast_3d(to_rgb(image))
        labels = self._items.labels(i).copy()
        scale_y, scale_x = ratio * loaded[0], ratio * loaded[1]
        boxes = _corners(labels[:, 1:], scale_x, scale_y, pad_x, pad_y)
        labels = _normalised(np.column_stack([labels[:, 0], boxes]).astype(np.float32), *canvas)
        factors = loaded[0] / original[0] * ratio, loaded[1] / original[1] * ratio
        return Sample(out, labels, i, original, (factors, (pad_x, pad_y)))

    def _fitted(self, i: int) -> Sample:
        """Letterboxed in one step to the common oblong shape of all images, as in a prediction."""
        image, fit = letterboxed(read_image(self._items.file(i)), self._shape, channels=self.channels)
        (top, left), (height, width) = fit.pad, fit.shape
        labels = self._items.labels(i)
        boxes = _corners(labels[:, 1:], fit.ratio[1] * width, fit.ratio[0] * height, left, top)
        labels = _normalised(np.column_stack([labels[:, 0], boxes]).astype(np.float32), *self._shape)
        return Sample(image, labels, i, (height, width), (fit.ratio, (left, top)))

    # Training ---------------------------------------------------------------------------------------------------------

    def _augmented(self, i: int, rng: np.random.Generator, how: Augmentation) -> tuple[Image, Floats]:
        """BGR image [H, W, 3] or grey [H, W], and rows [k, 5] (class, xyxy pixels)."""
        if self.rectangular or rng.random() >= how.mosaic:
            return self._single(i, rng, how)
        image, labels = self._mosaic(i, rng, how)
        if rng.random() < how.mixup:
            other, more = self._mosaic(int(rng.integers(len(self))), rng, how)
            share = float(rng.beta(32.0, 32.0))
            image = np.asarray(cv2.addWeighted(image, share, other, 1 - share, 0), np.uint8)
            labels = np.concatenate([labels, more])
        return image, labels

    def _mosaic(self, i: int, rng: np.random.Generator, how: Augmentation) -> tuple[Image, Floats]:
        side = self.image_size
        images = [i, *(int(j) for j in rng.integers(len(self), size=3))]
        rng.shuffle(images)
        cx, cy = (int(v) for v in rng.uniform(0.5 * side, 1.5 * side, 2))
        sizes = [self._loaded_size(self._items.shape(j)) for j in images]
        tiles = mosaic_tiles(images, sizes, (cx, cy), side)
        return self._composed(tiles, (2 * side, 2 * side), (side, side), rng, how)

    def _single(self, i: int, rng: np.random.Generator, how: Augmentation) -> tuple[Image, Floats]:
        canvas = self.canvas(i)
        height, width = self._loaded_size(self._items.shape(i))
        ratio = min(canvas[0] / height, canvas[1] / width)
        height, width = round(height * ratio), round(width * ratio)
        x, y = round((canvas[1] - width) / 2 - 0.1), round((canvas[0] - height) / 2 - 0.1)
        tile = Tile(i, (height, width), (x, y), (x, y, x + width, y + height), (x, y))
        return self._composed([tile], canvas, canvas, rng, replace(how, copy_paste=0.0))

    def _composed(
        self,
        tiles: list[Tile],
        canvas: tuple[int, int],
        size: tuple[int, int],
        rng: np.random.Generator,
        how: Augmentation,
    ) -> tuple[Image, Floats]:
        view, gain = random_view(rng, how, canvas, size)
        view = snapped(view, tiles[0].corner)
        labels, outlines = self._objects(tiles, canvas)

        def render(matrix: Matrix) -> Image:
            return compose(tiles, self._read, matrix, size, channels=self.channels)

        image = render(view)
        if how.copy_paste:
            labels, outlines = paste_copies(image, labels, outlines, rng, how.copy_paste, canvas, view, render)
        boxes = warp_boxes(labels[:, 1:], outlines, view, size)
        keep = visible_enough(labels[:, 1:], boxes, gain)
        return image, np.column_stack([labels[keep, 0], boxes[keep]]).astype(np.float32)

    def _objects(self, tiles: list[Tile], canvas: tuple[int, int]) -> tuple[Floats, list[Floats]]:
        """Rows [k, 5] (class, xyxy) and outlines [p, 2] of all tiles in canvas pixels; boxes are clipped to the
        canvas."""
        rows, outlines = [np.zeros((0, 5), np.float32)], []
        for tile in tiles:
            labels = self._items.labels(tile.image)
            height, width = tile.size
            boxes = _corners(labels[:, 1:], width, height, *tile.origin)
            boxes[:, 0::2] = boxes[:, 0::2].clip(0, canvas[1])
            boxes[:, 1::2] = boxes[:, 1::2].clip(0, canvas[0])
            rows.append(np.column_stack([labels[:, 0], boxes]).astype(np.float32))
            scale, shift = np.array([width, height], np.float32), np.array(tile.origin, np.float32)
            found = self._items.outlines(tile.image)
            outlines += [outline * scale + shift if len(outline) else outline for outline in found]
        return np.concatenate(rows), outlines

    # Pixels -----------------------------------------------------------------------------------------------------------

    def _loaded_size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image scaled to the image size on its longer side."""
        ratio = self.image_size / max(shape)
        return (shape[0], shape[1]) if ratio == 1 else (math.ceil(shape[0] * ratio), math.ceil(shape[1] * ratio))

    def _stored_size(self, shape: NDArray[np.int32]) -> tuple[int, int]:
        """Like `_loaded_size`, but small images are not enlarged, because the warp does that."""
        original = int(shape[0]), int(shape[1])
        return original if max(original) <= self.image_size else self._loaded_size(original)

    def _read(self, i: int) -> Image:
        """BGR pixels [H, W, 3] or grey pixels [H, W] of image i at its stored size."""
        if self._cache is not None and (kept := self._cache.get(i)) is not None:
            return kept
        original = self._items.shape(i)
        size = self._stored_size(np.array(original, np.int32))
        shrink = max(original) / self.image_size
        # Evaluation decodes every pixel, as the published figures do; training may decode JPEG at 1/2, 1/4 or 1/8 size.
        reduce = 1 if self.augmentation is None else max(k for k in (1, 2, 4, 8) if k <= max(shrink, 1))
        image = read_image(self._items.file(i), reduce, channels=self.channels)
        if image.shape[:2] != size:
            method = cv2.INTER_AREA if self.augmentation is None else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)
        if self._cache is not None:
            self._cache.put(i, image)
        return image


def _rectangles(
    shapes: NDArray[np.int32], image_size: int, batch_size: int, stride: int, pad: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order by aspect ratio [n], and the (height, width) of the batch of every image [n, 2]."""
    aspect = shapes[:, 0] / shapes[:, 1]
    order = np.argsort(aspect, kind="stable")
    shape_of = np.zeros((len(shapes), 2), np.int64)
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        low, high = aspect[members].min(), aspect[members].max()
        sides = (high, 1.0) if high < 1 else (1.0, 1 / low) if low > 1 else (1.0, 1.0)
        shape_of[members] = np.ceil(np.array(sides) * image_size / stride + pad).astype(np.int64) * stride
    return order.astype(np.int64), shape_of


def _corners(boxes: Floats, width: float, height: float, x: float, y: float) -> Floats:
    """Normalised xywh [n, 4] to xyxy pixels, shifted by (x, y)."""
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
    return np.asarray(corners * (width, height, width, height) + (x, y, x, y), np.float32)


def _normalised(rows: Floats, height: int, width: int) -> Floats:
    """Rows (class, xyxy pixels) [n, 5] to (class, xywh normalised), clipped to just inside the image."""
    edge = 1e-3
    x0, x1 = rows[:, 1].clip(0, width - edge), rows[:, 3].clip(0, width - edge)
    y0, y1 = rows[:, 2].clip(0, height - edge), rows[:, 4].clip(0, height - edge)
    boxes = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
    return np.column_stack([rows[:, 0], *boxes]).astype(np.float32)
