"""Images for classifiers: a folder per class, or images without labels, cropped as in the package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from PIL import Image

from secateur.data.config import SPLITS, DataConfig
from secateur.data.images import read_image
from secateur.data.index import Index
from secateur.errors import UserError
from secateur.families.detection.split import DetectionSplit
from secateur.families.reading import Reading
from secateur.families.ultralytics.evidence.task_split import TaskBatch
from secateur.families.ultralytics.package import needed
from secateur.files import usable_path


@dataclass(frozen=True)
class ClassFolders:
    """A folder with one folder per split, each with one folder per class; a `families.reading.DataSet`."""

    file: Path
    splits: Mapping[str, Path]
    names: Mapping[int, str]
    one_class: bool = False
    labelled: ClassVar[bool] = True

    @staticmethod
    def of(folder: str) -> ClassFolders:
        """Opens a folder; the names of the classes are the sorted folder names of the first split.

        Raises:
            UserError: there are no such folders.
        """
        root = Path(os.path.abspath(usable_path(folder, expand=True)))  # noqa: PTH100  (links stay)
        splits = {name: root / name for name in SPLITS if (root / name).is_dir()}
        names = _classes(next(iter(splits.values()))) if splits else []
        if not names:
            raise UserError(
                f"{folder} is not a data set for classifiers: it needs a folder train, val or test with one folder per "
                "class. Set --data to such a folder, or to the data.yaml of another task."
            )
        return ClassFolders(root, splits, dict(enumerate(names)))

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)


@dataclass(frozen=True)
class ClassSplit:
    """The checked images of a split with their classes, see `families.reading.Split`.

    Attributes:
        index: the images.
        classes: class of each image; empty if unknown.
    """

    index: Index
    classes: tuple[int, ...] = ()

    @staticmethod
    def of(data: ClassFolders | DataConfig, name: str, tell: bool = False) -> ClassSplit:
        """Checks the images of a split.

        Args:
            data: a data set with classes, or images without labels.

        Raises:
            UserError: there is no such split, it has no usable image, or a folder does not match a class.
        """
        if isinstance(data, DataConfig):
            return ClassSplit(DetectionSplit.of(replace(data, labelled=False), name, tell=tell).index)
        if name not in data.splits:
            raise UserError(f"{data.file} has no folder '{name}'. Available: {', '.join(data.splits)}.")
        folder = data.splits[name]
        images = DataConfig(data.file, data.file, {name: (folder,)}, dict(data.names), labelled=False)
        index = DetectionSplit.of(images, name, tell=tell).index
        if data.one_class:
            return ClassSplit(index, (0,) * len(index))
        numbers = {label: number for number, label in data.names.items()}
        labels = [Path(file).relative_to(folder).parts[0] for file in index.files]
        strange = next((place for place, label in enumerate(labels) if label not in numbers), None)
        if strange is not None:
            raise UserError(
                f"The image {index.files[strange]} is not in a folder of one of the {data.nc} classes. Move it there."
            )
        return ClassSplit(index, tuple(numbers[label] for label in labels))

    def __len__(self) -> int:
        return len(self.index)

    def select(self, places: Sequence[int]) -> ClassSplit:
        """The images at these indices."""
        classes = tuple(self.classes[place] for place in places) if self.classes else ()
        return ClassSplit(self.index.select(places), classes)

    def signature(self) -> str:
        """A digest of the images and their classes."""
        digest = hashlib.blake2b(np.asarray(self.classes, np.int64).tobytes(), digest_size=8)
        return f"{DetectionSplit(self.index).signature()}{digest.hexdigest()}"

    def shuffled(self, reading: Reading) -> ClassBatches:
        """Cropped images, randomly mirrored if augmentation is enabled."""
        return ClassBatches(self, reading)

    def ordered(self, reading: Reading) -> Iterator[TaskBatch]:
        """Every image once."""
        places = range(len(self))
        for start in range(0, len(self), reading.batch_size):
            yield self.batch(places[start : start + reading.batch_size], reading)

    def batch(self, places: Sequence[int], reading: Reading, mirrored: Sequence[bool] = ()) -> TaskBatch:
        """The images at these indices, centre crops with the size of the shorter side, float32 in 0..1."""
        crop, images = needed("data.augment").classify_transforms(size=reading.image_size), []
        for number, place in enumerate(places):
            pixels = read_image(self.index.files[place], channels=reading.channels)
            image = crop(Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels))
            images.append(image.flip(-1) if mirrored and mirrored[number] else image)
        classes = [self.classes[place] for place in places] if self.classes else []
        return TaskBatch(torch.stack(images), torch.tensor(classes, dtype=torch.long))


@dataclass(frozen=True)
class ClassBatches:
    """Whole batches, epoch by epoch, as `training.batches.Batches`."""

    split: ClassSplit
    reading: Reading

    def __len__(self) -> int:
        return max(len(self.split) // self.reading.batch_size, 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[TaskBatch]:
        """Batches of an epoch from index `start`; they depend only on the seed and the epoch."""
        draw, size = np.random.default_rng((self.reading.seed, epoch)), self.reading.batch_size
        order, chances = draw.permutation(len(self.split)), draw.random(len(self.split))
        share = 0.0 if self.reading.augmentation is None else self.reading.augmentation.fliplr
        for number in range(start, len(self)):
            here = slice(number * size, (number + 1) * size)
            yield self.split.batch(order[here].tolist(), self.reading, (chances[here] < share).tolist())


def _classes(folder: Path) -> list[str]:
    """Names of the folders in a folder."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
