"""Labelled images for segmentation, poses and oriented boxes, read by the package's own data set."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from secateur.data.config import DataConfig
from secateur.errors import UserError, told
from secateur.families.detection.split import DetectionSplit
from secateur.families.reading import Reading
from secateur.families.ultralytics.evidence.targets import packed
from secateur.families.ultralytics.package import needed
from secateur.terminal import silenced

_LABELS = {
    "segment": "outlines: a class and the points of a polygon in every row",
    "obb": "oriented boxes: a class and the four corners in every row",
    "pose": "key points: a class, a box and the key points in every row, and kpt_shape in the data.yaml",
}


@dataclass(frozen=True)
class TaskBatch:
    """Images uint8 [B, C, H, W], or float in 0..1, with targets as `targets` says."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class TaskSplit:
    """The checked images of a split with what a task asks of their labels, see `families.reading.Split`.

    Attributes:
        base: the images with their boxes.
        data: what they are a split of.
        task: "segment", "pose" or "obb".
        options: of the network's training.
    """

    base: DetectionSplit
    data: DataConfig
    task: str
    options: Any

    @staticmethod
    def of(base: DetectionSplit, data: DataConfig, network: Any) -> TaskSplit:
        """Refuses labels that are none of the network's task.

        Raises:
            UserError: naming the data set and what its labels lack.
        """
        task, index = network.architecture.task, base.index
        points = tuple(getattr(network.head, "kpt_shape", ()))
        if base.classes_in_files is not None:
            raise UserError(
                f"{data.file} has classes that the network was narrowed from, and its labels for the task '{task}' are "
                "read for all classes or none; give --images and no --data."
            )
        outlined = len(index.point_offsets) and np.diff(index.point_offsets).min(initial=1) > 0
        fits = outlined if task != "pose" else data.kpt_shape is not None
        if not fits:
            raise UserError(
                f"{data.file} has no labels for a network of the task '{task}', which needs {_LABELS[task]}; correct "
                "the labels, or give --images and no --data."
            )
        if task == "pose" and data.kpt_shape is not None and data.kpt_shape[0] != points[0]:
            raise UserError(
                f"{data.file} has kpt_shape {list(data.kpt_shape)} and the network gives {points[0]} key points; give "
                "the data set that it was trained on, or --images and no --data."
            )
        return TaskSplit(base, data, task, network.model.args)

    def __len__(self) -> int:
        return len(self.base)

    def select(self, places: Sequence[int]) -> TaskSplit:
        """The images at these places."""
        return dataclasses.replace(self, base=self.base.select(places))

    def signature(self) -> str:
        """See `DetectionSplit.signature`."""
        return self.base.signature()

    def shuffled(self, reading: Reading) -> TaskBatches:
        """Square images, not augmented: as they are scored."""
        return TaskBatches(self, reading)

    def ordered(self, reading: Reading) -> Iterator[TaskBatch]:
        """Every image once."""
        places = range(len(self))
        for start in range(0, len(self), reading.batch_size):
            yield self.batch(places[start : start + reading.batch_size], reading)

    def batch(self, places: Sequence[int], reading: Reading) -> TaskBatch:
        """The images at these places, sorted by their paths."""
        dataset = self.dataset(places, reading)
        batch = dataset.collate_fn([dataset[place] for place in range(len(dataset))])
        return TaskBatch(batch["img"], packed(self.task, batch))

    def dataset(self, places: Sequence[int], reading: Reading) -> Any:
        """The package's own data set of the images at these places, which it scans without leaving a cache.

        Raises:
            UserError: it cannot read the labels.
        """
        index = self.base.index.select(places)
        own = {"task": self.task, "imgsz": reading.image_size, "overlap_mask": True, "rect": False, "cache": False}
        options = needed("cfg").get_cfg(overrides={"mask_ratio": self.options.mask_ratio, **own})
        shape = {} if self.data.kpt_shape is None else {"kpt_shape": list(self.data.kpt_shape)}
        named = {"names": dict(self.data.names), "nc": self.data.nc, "channels": reading.channels, **shape}
        try:
            with tempfile.TemporaryDirectory() as folder, silenced():
                listing = Path(folder) / "images.txt"
                listing.write_text("".join(f"{file}\n" for file in index.files), encoding="utf-8")
                found = _leaving_no_cache(folder)(
                    img_path=str(listing), imgsz=reading.image_size, augment=False, hyp=options, rect=False,
                    single_cls=self.data.one_class, task=self.task, data=named,
                )  # fmt: skip
        except (AssertionError, FileNotFoundError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"The package ultralytics cannot read the labels of {self.data.file} for the task '{self.task}' "
                f"({told(error, 200)}); correct them, or give --images and no --data."
            ) from error
        if len(index.labels) and not any(len(labels["cls"]) for labels in found.labels):
            raise UserError(
                f"The package ultralytics finds no labels of {self.data.file}: it looks for them under labels/ where "
                "the images are under images/; move them there, or give --images and no --data."
            )
        return found


@dataclass(frozen=True)
class TaskBatches:
    """Whole batches of epoch after epoch, as `training.batches.Batches`."""

    split: TaskSplit
    reading: Reading

    def __len__(self) -> int:
        return max(len(self.split) // self.reading.batch_size, 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[TaskBatch]:
        """The batches of an epoch from number `start` on, in an order that is a function of the seed and the epoch."""
        order = np.random.default_rng((self.reading.seed, epoch)).permutation(len(self.split))
        size = self.reading.batch_size
        for number in range(start, len(self)):
            yield self.split.batch(order[number * size : (number + 1) * size].tolist(), self.reading)


def _leaving_no_cache(folder: str) -> Any:
    """The package's data set whose cache of labels, a pickle, is neither read nor left next to the labels."""
    parent = needed("data.dataset").YOLODataset

    def get_label_files(self: Any) -> list[str]:
        """Its label files are found as ever; what is returned names the place of the cache."""
        parent.get_label_files(self)
        return [f"{folder}/labels/none.txt"]

    return type("LabelledImages", (parent,), {"get_label_files": get_label_files})
