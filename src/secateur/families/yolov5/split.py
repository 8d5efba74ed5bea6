"""A split of a data set of boxes, as trainings and healing read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.data.augment import Augmentation
from secateur.data.batches import EvaluationBatches, TrainBatches, train_batches
from secateur.data.config import DataConfig
from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index, content_signature, scan, without_objects
from secateur.errors import UserError
from secateur.families.reading import Reading


@dataclass(frozen=True)
class DetectionSplit:
    """Checked images and their labels."""

    index: Index

    def __len__(self) -> int:
        """Number of images."""
        return len(self.index.files)

    def select(self, places: Sequence[int]) -> DetectionSplit:
        """The images at these places, in this order."""
        return DetectionSplit(self.index.select(places))

    def signature(self) -> str:
        """A digest of the images and labels."""
        return content_signature(self.index)

    def shuffled(self, reading: Reading) -> TrainBatches:
        """Batches of epoch after epoch."""
        return train_batches(
            self._dataset(reading, reading.batch_size * reading.world),
            reading.batch_size,
            seed=reading.seed,
            workers=reading.workers,
            rank=reading.rank,
            world=reading.world,
            pin=reading.pin,
        )

    def ordered(self, reading: Reading) -> Iterable[Any]:
        """Every image once, in order."""
        dataset = self._dataset(reading, reading.batch_size)
        return EvaluationBatches(dataset, reading.batch_size, workers=reading.workers, pin=reading.pin)

    def _dataset(self, reading: Reading, batch_size: int) -> DetectionDataset:
        how = reading.augmentation
        return DetectionDataset(
            self.index,
            reading.image_size,
            augmentation=None if how is None else Augmentation.from_hyp(how.to_dict()),
            rectangular=reading.rect,
            pad=0.0,
            batch_size=batch_size,
            stride=reading.stride,
            seed=reading.seed,
            channels=reading.channels,
        )


def open_split(data: DataConfig, name: str, *, objects: bool = True, otherwise: str = "") -> DetectionSplit:
    """The checked images and labels of a split.

    Raises:
        UserError: the data set has no such split, it is empty or broken, or no image has an object where objects are
            needed.
    """
    if name not in data.splits:
        raise UserError(f"{data.file} has no '{name}' split; it has {', '.join(data.splits)}.")
    index = scan(data, name, single_cls=data.one_class)
    nothing = without_objects(index, name, data) if objects and data.labelled else None
    if nothing is not None:
        raise UserError(f"{nothing}{otherwise}.")
    return DetectionSplit(index)
