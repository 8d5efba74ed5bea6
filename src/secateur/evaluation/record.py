"""The objects and the detections of every image of a split, in one file from which networks are compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError, told
from secateur.evaluation.average_precision import ap_by_size
from secateur.evaluation.matching import Boxes, Floats, Ints, matches
from secateur.evaluation.settings import NmsSettings
from secateur.files import atomic_write
from secateur.scores import Scores

FORMAT = 1
_MOST_GROWTH, _SMALL = 100, 64_000_000
"""A file of ours grows by less than this factor in memory, if it is not small (bytes) there."""
_ARRAYS = (
    "shapes", "truth_boxes", "truth_classes", "truth_offsets",
    "detection_boxes", "detection_scores", "detection_classes", "detection_offsets",
)  # fmt: skip


def record_file(folder: Path, split: str = "val") -> Path:
    """Where the record of a split is in a folder of reports."""
    return folder / ("detections.npz" if split in ("val", "") else f"detections-{split}.npz")


def save_record(folder: Path, scores: Scores) -> None:
    """Writes the detections that an evaluation kept into a folder of reports; nothing where it kept none.

    Raises:
        UserError: the file cannot be written.
    """
    if isinstance(scores.detections, DetectionRecord):
        scores.detections.save(record_file(folder, scores.detections.split))


@dataclass(frozen=True)
class Matched:
    """Which object each detection finds.

    Attributes:
        thresholds: lowest IoU of a pair, one a row.
        truth: int64 [thresholds, detections], number of the object, -1 where the detection finds none.
        objects: how many there are.
    """

    thresholds: tuple[float, ...]
    truth: Ints
    objects: int

    @property
    def hits(self) -> NDArray[np.bool_]:
        """[thresholds, detections], whether a detection finds an object."""
        return np.asarray(self.truth >= 0)

    @property
    def found(self) -> NDArray[np.bool_]:
        """[thresholds, objects], whether an object is found."""
        flags = np.zeros((len(self.truth), self.objects), dtype=bool)
        for row, truth in zip(flags, self.truth, strict=True):
            row[truth[truth >= 0]] = True
        return flags


@dataclass(frozen=True)
class DetectionRecord:
    """The objects and the detections of every image of a split, as they were evaluated.

    Attributes:
        files: path of each image, relative to `root` where the image is inside it.
        shapes: int32 [images, 2], height and width in pixels.
        truths: the objects, in the order of their images.
        detections: the detector's boxes, in the order of their images.
        names: class names by id.
        confidence, iou, max_det: the settings of suppression.
        data: name of the data set's description; "" where it is not known.
        split: its name.
        root: folder of the data set when it was evaluated; "" where it is not known.
    """

    files: tuple[str, ...]
    shapes: NDArray[np.int32]
    truths: Boxes
    detections: Boxes
    names: Mapping[int, str]
    confidence: float
    iou: float
    max_det: int
    data: str = ""
    split: str = ""
    root: str = ""

    @staticmethod
    def of(
        files: Sequence[str],
        shapes: NDArray[np.int32],
        truths: Boxes,
        detections: Boxes,
        names: Mapping[int, str],
        nms: NmsSettings,
    ) -> DetectionRecord:
        """The record of an evaluation; boxes are in the order of their images."""
        shapes = np.asarray(shapes, np.int32)
        return DetectionRecord(
            tuple(files), shapes, truths, detections, dict(names), nms.conf, nms.iou, nms.max_det
        )  # fmt: skip

    def of_data(self, file: Path, split: str, root: Path) -> DetectionRecord:
        """The same with the name of its data set; paths of images inside `root` become relative."""
        base = os.path.abspath(root)  # noqa: PTH100  (links stay)
        files = tuple(_inside(name, base) for name in self.files)
        return dataclasses.replace(self, files=files, data=file.name, split=split, root=base)

    def __len__(self) -> int:
        return len(self.files)

    def image_file(self, image: int) -> Path:
        """Where an image was when it was evaluated."""
        return Path(self.root) / self.files[image]

    @cached_property
    def truth_offsets(self) -> Ints:
        """[images + 1], the objects of image i are offsets[i] to offsets[i + 1]."""
        return np.searchsorted(self.truths.image, np.arange(len(self) + 1)).astype(np.int64)

    @cached_property
    def detection_offsets(self) -> Ints:
        """[images + 1], the detections of image i are offsets[i] to offsets[i + 1]."""
        return np.searchsorted(self.detections.image, np.arange(len(self) + 1)).astype(np.int64)

    @cached_property
    def signature(self) -> str:
        """A digest of the names and shapes of the images and of the objects: equal for records that can be compared."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(PurePath(file).name.encode(errors="surrogateescape") + b"\0")
        truths = self.truths
        for array in (self.shapes, self.truth_offsets, truths.classes, truths.corners.astype(np.float32)):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def matched(self, thresholds: Sequence[float] = (0.5,), confidence: float = 0.0) -> Matched:
        """Which object of its image and class each detection finds, by COCO's rule.

        Args:
            thresholds: lowest IoU of a pair.
            confidence: detections below it find nothing.
        """
        truth = matches(self.truths, self.detections, thresholds)
        truth[:, self.detections.scores < confidence] = -1
        return Matched(tuple(thresholds), truth, len(self.truths))

    @cached_property
    def ap_by_size(self) -> dict[str, float | None]:
        """COCO's AP (IoU 0.5 to 0.95) of small, medium and large objects; None where there is no object of the size."""
        return ap_by_size(self.truths, self.detections, len(self))

    def save(self, path: str | Path) -> None:
        """Writes the record as compressed arrays, as a whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        about = {
            "format": FORMAT,
            "data": {"file": self.data, "split": self.split, "root": self.root, "images": len(self)},
            "signature": self.signature,
            "names": {str(number): name for number, name in self.names.items()},
            "settings": {"confidence": self.confidence, "iou": self.iou, "max_det": self.max_det},
            "files": self.files,
        }
        truths, found = self.truths, self.detections
        arrays: dict[str, Any] = {
            "shapes": self.shapes,
            "truth_boxes": truths.corners,
            "truth_classes": truths.classes.astype(np.int32),
            "truth_offsets": self.truth_offsets,
            # Detections are computed in float32; objects are not.
            "detection_boxes": found.corners.astype(np.float32),
            "detection_scores": found.scores.astype(np.float32),
            "detection_classes": found.classes.astype(np.int32),
            "detection_offsets": self.detection_offsets,
        }
        # ASCII escapes keep file names that are no valid UTF-8.
        packed = np.frombuffer(json.dumps(about, ensure_ascii=True).encode(), np.uint8)
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, about=packed, **arrays)

    @staticmethod
    def load(path: str | Path) -> DetectionRecord:
        """Reads what `save` wrote; nothing in the file is run.

        Raises:
            UserError: the file is missing, damaged or no record.
        """
        file = Path(path)
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > max(_SMALL, _MOST_GROWTH * file.stat().st_size):
                raise ValueError("it would grow too far in memory")
            with np.load(file, allow_pickle=False) as data:
                about = json.loads(data["about"].tobytes())
                return _record(about, {name: data[name] for name in _ARRAYS})
        except OSError as error:
            raise UserError(f"Cannot read {file}: {error.strerror or error}.") from None
        except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, RecursionError) as error:
            raise UserError(
                f"{file} is not a record of detections of this version ({told(error)}); evaluate the network again."
            ) from None


def _inside(file: str, root: str) -> str:
    path = PurePath(os.path.abspath(file))  # noqa: PTH100  (links stay)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _record(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> DetectionRecord:
    """The record of what a file holds.

    Raises:
        ValueError: the parts do not fit.
    """
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']}")
    files, names = tuple(map(str, about["files"])), {int(key): str(name) for key, name in about["names"].items()}
    if arrays["shapes"].shape != (len(files), 2):
        raise ValueError("images without shapes")
    truths, found = (_boxes(arrays, kind, len(files), names) for kind in ("truth", "detection"))
    data, settings = about["data"], about["settings"]
    return DetectionRecord(
        files,
        arrays["shapes"].astype(np.int32),
        truths,
        found,
        names,
        float(settings["confidence"]),
        float(settings["iou"]),
        int(settings["max_det"]),
        str(data["file"]),
        str(data["split"]),
        str(data["root"]),
    )


def _boxes(arrays: Mapping[str, NDArray[Any]], kind: str, images: int, names: Mapping[int, str]) -> Boxes:
    corners: Floats = arrays[f"{kind}_boxes"].astype(np.float64)
    classes, offsets = arrays[f"{kind}_classes"].astype(np.int64), arrays[f"{kind}_offsets"]
    scores = arrays[f"{kind}_scores"].astype(np.float64) if kind == "detection" else np.ones(len(corners))
    lengths = np.diff(offsets)
    whole = offsets.shape == (images + 1,) and offsets[0] == 0 and offsets[-1] == len(corners) and (lengths >= 0).all()
    if not whole or corners.shape != (len(classes), 4) or scores.shape != classes.shape or classes.ndim != 1:
        raise ValueError(f"the arrays of its {kind}s do not fit")
    if not (np.isfinite(corners).all() and np.isfinite(scores).all() and np.isin(classes, list(names)).all()):
        raise ValueError(f"a {kind} that cannot be")
    return Boxes(np.repeat(np.arange(images), lengths), corners, classes, scores)
