"""Label arrays, file names and decoded images in memory that is shared by all worker processes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.data.images import Image
from secateur.data.index import Floats, Index

_AUTO_LIMIT = 1 << 30  # bytes


class SharedIndex:
    """The arrays of an Index as tensors: forked workers read the pages of the parent, started workers map the same
    memory.

    There is no Python object per image, so reading does not change reference counts and copies no pages.
    """

    def __init__(self, index: Index) -> None:
        names = [os.fsencode(file) for file in index.files]
        ends = np.cumsum([0, *(len(name) for name in names)])
        arrays = {
            "names": np.frombuffer(b"".join(names), np.uint8).copy(),
            "ends": ends.astype(np.int64),
            "shapes": np.ascontiguousarray(index.shapes, np.int32),
            "labels": np.ascontiguousarray(index.labels, np.float32),
            "offsets": np.ascontiguousarray(index.offsets, np.int64),
            "points": np.ascontiguousarray(index.points, np.float32),
            "point_offsets": np.ascontiguousarray(index.point_offsets, np.int64),
        }
        self.__setstate__({name: torch.from_numpy(array) for name, array in arrays.items()})

    def __getstate__(self) -> dict[str, Tensor]:
        # Tensors, unlike arrays, are passed to another process as shared memory.
        return self._tensors

    def __setstate__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._arrays: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in tensors.items()}

    def __len__(self) -> int:
        return len(self._arrays["offsets"]) - 1

    def file(self, i: int) -> str:
        """Path of image i."""
        start, stop = self._arrays["ends"][i : i + 2]
        return os.fsdecode(self._arrays["names"][start:stop].tobytes())

    def shape(self, i: int) -> tuple[int, int]:
        """(height, width) of image i."""
        height, width = self._arrays["shapes"][i].tolist()
        return height, width

    def labels(self, i: int) -> Floats:
        """View, float32 [k, 5], of the rows of image i."""
        start, stop = self._arrays["offsets"][i : i + 2]
        return self._arrays["labels"][start:stop]

    def outlines(self, i: int) -> list[Floats]:
        """Normalised outline, float32 [p, 2], of each row of image i; empty for boxes."""
        start, stop = self._arrays["offsets"][i : i + 2]
        points = self._arrays["points"]
        if not len(points):
            return [np.zeros((0, 2), np.float32)] * int(stop - start)
        borders = self._arrays["point_offsets"][start : stop + 1].tolist()
        return [points[a:b] for a, b in pairwise(borders)]


class ImageCache:
    """Decoded images in one anonymous shared mapping: the process that reads an image first stores it for all."""

    def __init__(self, sizes: Sequence[tuple[int, int]], channels: int = 3) -> None:
        self._sizes = np.array(sizes, np.int32).reshape(-1, 2)
        self._channels = channels
        ends = np.concatenate([[0], np.cumsum(self._sizes.prod(1, dtype=np.int64) * channels)])
        self._starts: NDArray[np.int64] = ends[:-1]
        count = len(self._sizes)
        self._memory = mmap.mmap(-1, max(1, int(ends[-1]) + count))
        self._pixels = np.frombuffer(self._memory, np.uint8, int(ends[-1]))
        self._ready = np.frombuffer(self._memory, np.uint8, count, int(ends[-1]))

    @staticmethod
    def choose(
        wish: bool | Literal["ram", "auto"], sizes: Sequence[tuple[int, int]], channels: int = 3
    ) -> ImageCache | None:
        """A cache if requested ("auto": if it is small compared with the free memory); otherwise None."""
        if not wish or not sizes:
            return None
        need = int(np.array(sizes, np.int64).prod(1).sum()) * channels
        fits = wish != "auto" or need <= min(_AUTO_LIMIT, _free_memory() // 4)
        return ImageCache(sizes, channels) if fits else None

    def get(self, i: int) -> Image | None:
        """View, uint8 [H, W, 3], or [H, W] for grey, of image i (do not modify it); None if it is not stored yet."""
        return self._slot(i) if self._ready[i] else None

    def put(self, i: int, image: Image) -> None:
        """Stores an image, uint8 [H, W, 3] or [H, W]; two processes that store the same image write the same bytes."""
        self._slot(i)[:] = image
        self._ready[i] = 1

    def _slot(self, i: int) -> Image:
        height, width = int(self._sizes[i, 0]), int(self._sizes[i, 1])
        start = int(self._starts[i])
        shape = (height, width) if self._channels == 1 else (height, width, self._channels)
        return self._pixels[start : start + height * width * self._channels].reshape(shape)


def _free_memory() -> int:
    """Bytes of memory available without swapping; 0 if the system does not report it."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
