"""Detection records: objects and detections of every image of a split in one file, for comparing networks."""

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
"""Maximum growth factor of a record file in memory, and the size in bytes below which it is not checked."""
_ARRAYS = (
    "shapes", "truth_boxes", "truth_classes", "truth_offsets",
    "detection_boxes", "detection_scores", "detection_classes", "detection_offsets",
)  # fmt: skip


def record_file(folder: Path, split: str = "val") -> Path:
    """Path of a split's record in a folder of reports."""
    return folder / ("detections.npz" if split in ("val", "") else f"detections-{split}.npz")


def save_record(folder: Path, scores: Scores) -> None:
    """Writes the detections of an evaluation, if it kept them, into a folder of reports.

    Raises:
        UserError: the file cannot be written.
    """
    if isinstance(scores.detections, DetectionRecord):
        scores.detections.save(record_file(folder, scores.detections.split))


@dataclass(frozen=True)
class Matched:
    """The object that each detection matches.

    Attributes:
        thresholds: minimum IoU of a match, one per row.
        truth: int64 [thresholds, detections], index of the object, -1 without a match.
        objects: number of objects.
    """

    thresholds: tuple[float, ...]
    truth: Ints
    objects: int

    @property
    def hits(self) -> NDArray[np.bool_]:
        """bool [thresholds, detections], whether a detection matches an object."""
        return np.asarray(self.truth >= 0)

    @property
    def found(self) -> NDArray[np.bool_]:
        """bool [thresholds, objects], whether an object is detected."""
        flags = np.zeros((len(self.truth), self.objects), dtype=bool)
        for row, truth in zip(flags, self.truth, strict=True):
            row[truth[truth >= 0]] = True
        return flags


@dataclass(frozen=True)
class DetectionRecord:
    """The objects and the detections of every image of a split, as evaluated.

    Attributes:
        files: path of each image, relative to `root` if the image is inside it.
        shapes: int32 [images, 2], height and width in pixels.
        truths: the objects, ordered by image.
        detections: the detected boxes, ordered by image.
        names: class names by id.
        confidence, iou, max_det: settings of the suppression.
        data: name of the data set's description; "" if unknown.
        split: name of the split.
        root: folder of the data set at the time of the evaluation; "" if unknown.
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
        """The record of an evaluation. `shapes` is int32 [images, 2]; boxes are ordered by image."""
        shapes = np.asarray(shapes, np.int32)
        return DetectionRecord(
            tuple(files), shapes, truths, detections, dict(names), nms.conf, nms.iou, nms.max_det
        )  # fmt: skip

    def of_data(self, file: Path, split: str, root: Path) -> DetectionRecord:
        """A copy with the name of its data set; paths of images inside `root` become relative."""
        base = os.path.abspath(root)  # noqa: PTH100  (links stay)
        files = tuple(_inside(name, base) for name in self.files)
        return dataclasses.replace(self, files=files, data=file.name, split=split, root=base)

    def __len__(self) -> int:
        return len(self.files)

    def image_file(self, image: int) -> Path:
        """Path of an image at the time of the evaluation."""
        return Path(self.root) / self.files[image]

    @cached_property
    def truth_offsets(self) -> Ints:
        """int64 [images + 1]: the objects of image i are offsets[i] to offsets[i + 1]."""
        return np.searchsorted(self.truths.image, np.arange(len(self) + 1)).astype(np.int64)

    @cached_property
    def detection_offsets(self) -> Ints:
        """int64 [images + 1]: the detections of image i are offsets[i] to offsets[i + 1]."""
        return np.searchsorted(self.detections.image, np.arange(len(self) + 1)).astype(np.int64)

    @cached_property
    def signature(self) -> str:
        """A digest of the names and shapes of the images and of the objects; equal for records that can be compared."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(PurePath(file).name.encode(errors="surrogateescape") + b"\0")
        truths = self.truths
        for array in (self.shapes, self.truth_offsets, truths.classes, truths.corners.astype(np.float32)):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def matched(self, thresholds: Sequence[float] = (0.5,), confidence: float = 0.0) -> Matched:
        """The object of the same image and class that each detection matches, by COCO's rule.

        Args:
            thresholds: minimum IoU of a match.
            confidence: detections below it match nothing.
        """
        truth = matches(self.truths, self.detections, thresholds)
        truth[:, self.detections.scores < confidence] = -1
        return Matched(tuple(thresholds), truth, len(self.truths))

    @cached_property
    def ap_by_size(self) -> dict[str, float | None]:
        """COCO's AP (IoU 0.5 to 0.95) of small, medium and large objects; None if there are no objects of that size."""
        return ap_by_size(self.truths, self.detections, len(self))

    def save(self, path: str | Path) -> None:
        """Writes the record atomically, as compressed arrays.

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
            # Detections are computed in float32, objects are not.
            "detection_boxes": found.corners.astype(np.float32),
            "detection_scores": found.scores.astype(np.float32),
            "detection_classes": found.classes.astype(np.int32),
            "detection_offsets": self.detection_offsets,
        }
        # ASCII escapes preserve file names that are not valid UTF-8.
        packed = np.frombuffer(json.dumps(about, ensure_ascii=True).encode(), np.uint8)
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, about=packed, **arrays)

    @staticmethod
    def load(path: str | Path) -> DetectionRecord:
        """Reads a file written by `save`. Nothing in the file is executed.

        Raises:
            UserError: the file is missing, damaged or not a record.
        """
        file = Path(path)
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > max(_SMALL, _MOST_GROWTH * file.stat().st_size):
                raise ValueError("it would expand too much in memory")
            with np.load(file, allow_pickle=False) as data:
                about = json.loads(data["about"].tobytes())
                return _record(about, {name: data[name] for name in _ARRAYS})
        except OSError as error:
            raise UserError(f"Cannot read {file}: {error.strerror or error}.") from None
        except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, RecursionError) as error:
            raise UserError(
                f"{file} is not a detection record of this version ({told(error)}). Evaluate the network again."
            ) from None


def _inside(file: str, root: str) -> str:
    path = PurePath(os.path.abspath(file))  # noqa: PTH100  (links stay)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _record(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> DetectionRecord:
    """The record from the contents of a file.

    Raises:
        ValueError: the parts do not match.
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
        raise ValueError(f"the arrays of its {kind}s do not match")
    if not (np.isfinite(corners).all() and np.isfinite(scores).all() and np.isin(classes, list(names)).all()):
        raise ValueError(f"an invalid {kind}")
    return Boxes(np.repeat(np.arange(images), lengths), corners, classes, scores)
