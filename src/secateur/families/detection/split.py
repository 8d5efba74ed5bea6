"""Splits of a data set of images with boxes, or without labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from secateur.data.augment import Augmentation
from secateur.data.batches import EvaluationBatches, TrainBatches, train_batches
from secateur.data.config import DataConfig
from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index, content_signature, scan, without_objects
from secateur.errors import UserError
from secateur.families.reading import Reading, Split

LOG = logging.getLogger("secateur")


@dataclass(frozen=True)
class DetectionSplit:
    """The checked images of a split with their boxes, see `families.reading.Split`.

    Attributes:
        index: files, shapes and labels.
        classes_in_files: for each class, its number in the label files; None: the same numbers.
    """

    index: Index
    classes_in_files: tuple[int, ...] | None = None

    @staticmethod
    def of(
        data: DataConfig, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False
    ) -> DetectionSplit:
        """Checks a split of a data set.

        Args:
            name: "train", "val" or "test".
            objects: raise an error if a labelled split has no objects.
            otherwise: an alternative for the user, for that error.
            tell: print a summary on stderr.

        Raises:
            UserError: the data set has no such split, the split is empty or damaged, or no image has an object.
        """
        if name not in data.splits:
            raise UserError(f"{data.file} has no '{name}' split. Available: {', '.join(data.splits)}.")
        if data.whole is not None:
            return DetectionSplit._of_some_classes(data, data.whole, name, objects=objects, tell=tell)
        index = scan(data, name, single_cls=data.one_class, progress=tell)
        nothing = without_objects(index, name, data) if objects and data.labelled else None
        if nothing is not None:
            raise UserError(f"{nothing}{otherwise}.")
        return DetectionSplit(index)

    @staticmethod
    def _of_some_classes(
        data: DataConfig, whole: DataConfig, name: str, *, objects: bool, tell: bool
    ) -> DetectionSplit:
        """The images of the whole data set with only the objects of these classes.

        Raises:
            UserError: see `of`.
        """
        every = DetectionSplit.of(whole, name, objects=objects, tell=tell).index
        numbers = {text: number for number, text in whole.names.items()}
        classes = tuple(numbers[text] for text in data.names.values())
        index = every.of_classes(classes)
        if objects and data.labelled and not len(index.labels):
            raise UserError(
                f"No image of split {name} ({data.file.name}) has an object of the classes that the detector was "
                f"narrowed to ({_few(data.names)}). Label some, or choose other classes."
            )
        if tell:
            LOG.info("%s: %d of %d objects are of the kept classes", name, len(index.labels), len(every.labels))
        return DetectionSplit(index, classes)

    def __len__(self) -> int:
        return len(self.index)

    def select(self, places: Sequence[int]) -> DetectionSplit:
        """The images at these indices, in this order."""
        return replace(self, index=self.index.select(places))

    def signature(self) -> str:
        """A digest of labels, outlines, and names and sizes of image files; independent of the folder of the data
        set."""
        return content_signature(self.index)

    def shuffled(self, reading: Reading) -> TrainBatches:
        """Shuffled square images, as mosaics if the augmentation includes them; with `rect`, similar shapes together,
        not shuffled.

        Raises:
            UserError: there are fewer images than processes.
        """
        return train_batches(
            self.dataset(reading),
            reading.batch_size,
            seed=reading.seed,
            workers=reading.workers,
            rank=reading.rank,
            world=reading.world,
            pin=reading.pin,
        )

    def ordered(self, reading: Reading) -> EvaluationBatches:
        """Every image once; with `rect`, images of similar shape together."""
        return EvaluationBatches(self.dataset(reading), reading.batch_size, workers=reading.workers, pin=reading.pin)

    def dataset(self, reading: Reading) -> DetectionDataset:
        """The images as a torch data set.

        Raises:
            UserError: the number of image channels is not supported.
        """
        how = None if reading.augmentation is None else Augmentation.from_hyp(reading.augmentation.to_dict())
        return DetectionDataset(
            self.index,
            reading.image_size,
            augmentation=how,
            rectangular=reading.rect,
            pad=0.0,
            batch_size=reading.batch_size * reading.world,
            stride=reading.stride,
            seed=reading.seed,
            channels=reading.channels,
        )


def index_of(split: Split, reader: str) -> Index:
    """Images and boxes of a split.

    Args:
        reader: what needs the boxes, as the start of a sentence: "A validation of boxes".

    Raises:
        UserError: the data set has labels of another kind.
    """
    if not isinstance(split, DetectionSplit):
        raise UserError(f"{reader} needs images with boxes, but this data set has labels of another kind.")
    return split.index


def _few(names: Mapping[int, str]) -> str:
    """Names of classes, shortened to the first few."""
    return ", ".join(list(names.values())[:4]) + (", ..." if len(names) > 4 else "")
