"""Labelled images for segmentation, poses and oriented boxes, read by the data set class of the package."""

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
    "segment": "outlines (a class and the points of a polygon in every row)",
    "obb": "oriented boxes (a class and the four corners in every row)",
    "pose": "key points (a class, a box and the key points in every row, and kpt_shape in the data.yaml)",
}


@dataclass(frozen=True)
class TaskBatch:
    """Images, uint8 [B, C, H, W] or float in 0..1, with targets as in `targets`."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class TaskSplit:
    """The checked images of a split with the labels of a task, see `families.reading.Split`.

    Attributes:
        base: the images with their boxes.
        data: the data set.
        task: "segment", "pose" or "obb".
        options: training options of the network.
    """

    base: DetectionSplit
    data: DataConfig
    task: str
    options: Any

    @staticmethod
    def of(base: DetectionSplit, data: DataConfig, network: Any) -> TaskSplit:
        """Checks that the labels are for the task of the network.

        Raises:
            UserError: they are not; the message names the data set and what its labels lack.
        """
        task, index = network.architecture.task, base.index
        points = tuple(getattr(network.head, "kpt_shape", ()))
        if base.classes_in_files is not None:
            raise UserError(
                f"{data.file} has more classes than the network, which was narrowed by --classes. Labels for the task "
                f"'{task}' cannot be restricted to some classes. Set --images and omit --data."
            )
        outlined = len(index.point_offsets) and np.diff(index.point_offsets).min(initial=1) > 0
        fits = outlined if task != "pose" else data.kpt_shape is not None
        if not fits:
            raise UserError(
                f"{data.file} has no labels for a network of the task '{task}', which needs {_LABELS[task]}. Correct "
                "the labels, or set --images and omit --data."
            )
        if task == "pose" and data.kpt_shape is not None and data.kpt_shape[0] != points[0]:
            raise UserError(
                f"{data.file} has kpt_shape {list(data.kpt_shape)}, but the network predicts {points[0]} key points. "
                "Set --data to the data set that it was trained on, or set --images and omit --data."
            )
        return TaskSplit(base, data, task, network.model.args)

    def __len__(self) -> int:
        return len(self.base)

    def select(self, places: Sequence[int]) -> TaskSplit:
        """The images at these indices."""
        return dataclasses.replace(self, base=self.base.select(places))

    def signature(self) -> str:
        """See `DetectionSplit.signature`."""
        return self.base.signature()

    def shuffled(self, reading: Reading) -> TaskBatches:
        """Square images without augmentation, as used for scoring."""
        return TaskBatches(self, reading)

    def ordered(self, reading: Reading) -> Iterator[TaskBatch]:
        """Every image once."""
        places = range(len(self))
        for start in range(0, len(self), reading.batch_size):
            yield self.batch(places[start : start + reading.batch_size], reading)

    def batch(self, places: Sequence[int], reading: Reading) -> TaskBatch:
        """The images at these indices, sorted by path."""
        dataset = self.dataset(places, reading)
        batch = dataset.collate_fn([dataset[place] for place in range(len(dataset))])
        return TaskBatch(batch["img"], packed(self.task, batch))

    def dataset(self, places: Sequence[int], reading: Reading) -> Any:
        """The data set of the package for the images at these indices; its label cache is not written.

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
                f"({told(error, 200)}). Correct them, or set --images and omit --data."
            ) from error
        if len(index.labels) and not any(len(labels["cls"]) for labels in found.labels):
            raise UserError(
                f"The package ultralytics finds no labels for {self.data.file}. It looks for them in labels/ next to "
                "images/. Move them there, or set --images and omit --data."
            )
        return found


@dataclass(frozen=True)
class TaskBatches:
    """Whole batches, epoch by epoch, as `training.batches.Batches`."""

    split: TaskSplit
    reading: Reading

    def __len__(self) -> int:
        return max(len(self.split) // self.reading.batch_size, 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[TaskBatch]:
        """Batches of an epoch from index `start`, in an order that depends only on the seed and the epoch."""
        order = np.random.default_rng((self.reading.seed, epoch)).permutation(len(self.split))
        size = self.reading.batch_size
        for number in range(start, len(self)):
            yield self.split.batch(order[number * size : (number + 1) * size].tolist(), self.reading)


def _leaving_no_cache(folder: str) -> Any:
    """The data set class of the package without its label cache, a pickle: it is neither read nor written."""
    parent = needed("data.dataset").YOLODataset

    def get_label_files(self: Any) -> list[str]:
        """Finds the label files as usual; the returned list determines the path of the cache."""
        parent.get_label_files(self)
        return [f"{folder}/labels/none.txt"]

    return type("LabelledImages", (parent,), {"get_label_files": get_label_files})
