"""What the predictors of all exported files share: batches of the file's size, and boxes from whatever it gives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.deploy.metadata import Metadata
from secateur.deploy.network import MapDecoder
from secateur.errors import UserError
from secateur.evaluation.nms import non_max_suppression
from secateur.evaluation.settings import PREDICTION, NmsSettings
from secateur.files import usable_path
from secateur.machine import cpu_threads

logger = logging.getLogger("secateur")

Shape = tuple[int | None, ...]


class FilePredictor:
    """An exported detector, as `evaluation.predictor.Predictor`; a runtime gives it `run`.

    Attributes:
        path: the file or folder.
        metadata: what it says of itself.
        names, nc: classes, as far as the file tells them; made-up names otherwise.
        strides: pixels of a cell of each level; the largest alone, or 32, where the file does not tell.
        image_size: height and width; None where any size goes.
        batch: images of a call; None where any number goes.
        device: where it runs.
        threads: threads inside an operator on CPU.
    """

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        *,
        takes: Shape,
        gives: Sequence[Shape],
        device: torch.device,
        threads: int,
    ) -> None:
        """Checks that the file is a detector.

        Args:
            takes: shape of its input, None for sides that are open.
            gives: shapes of its outputs.

        Raises:
            UserError: it is none.
        """
        self.path, self.metadata, self.device, self.threads = path, metadata, device, threads
        self._takes = takes
        self.nc = _classes(path, metadata, takes, gives)
        self.names = {i: metadata.names.get(i, f"class{i}") for i in range(self.nc)}
        self.strides, self.single_cls = metadata.strides, metadata.single_cls
        self.batch = takes[0]
        height, width = takes[2], takes[3]
        self.image_size = (height, width) if height is not None and width is not None else None
        self._decoders: dict[tuple[int, int], MapDecoder] = {}

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Images float32 [B, C, H, W] in 0..1, as many as a call takes -> the outputs as the file gives them."""
        raise NotImplementedError

    def outputs(self, images: Tensor) -> list[NDArray[np.float32]]:
        """Images float32 [B, C, H, W] in 0..1, any number of them -> each output of the file for all of them.

        Raises:
            UserError: the file does not take images of this size.
        """
        pixels = images.cpu().numpy().astype(np.float32, copy=False)
        if any(
            side is not None and side != given for side, given in zip(self._takes[1:], pixels.shape[1:], strict=True)
        ):
            raise UserError(f"{self.path} takes images of shape {_sides(self._takes)}, not {_sides(pixels.shape)}.")
        count = self.batch or len(pixels)
        found: list[list[NDArray[np.float32]]] = []
        for start in range(0, len(pixels), count):
            part = pixels[start : start + count]
            if len(part) < count:
                part = np.concatenate((part, np.zeros((count - len(part), *part.shape[1:]), part.dtype)))
            found.append([output.astype(np.float32, copy=False) for output in self.run(np.ascontiguousarray(part))])
        return [np.concatenate(parts)[: len(pixels)] for parts in zip(*found, strict=True)]

    def rows(self, images: Tensor, confidence: float) -> Sequence[Tensor]:
        """Decoded rows of each image with objectness above `confidence`; see `Predictor`.

        Of a file with the suppression inside, these are the boxes that stayed: their score as the objectness, and 1 for
        their class.

        Raises:
            UserError: the file does not take images of this size.
        """
        outputs = [torch.from_numpy(output) for output in self.outputs(images)]
        if self.metadata.output == "raw":
            decoded = self._decoder((images.shape[2], images.shape[3]))(outputs)
        elif self.metadata.output == "detections":
            decoded = _as_rows(outputs[0], self.nc)
        else:
            decoded = outputs[0]
        return [rows[rows[:, 4] > confidence] for rows in decoded]

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """Boxes of each image; see `Predictor`."""
        return non_max_suppression(self.rows(images, settings.conf), settings)

    def _decoder(self, size: tuple[int, int]) -> MapDecoder:
        if size not in self._decoders:
            anchors = torch.tensor(self.metadata.anchors, dtype=torch.float32)
            self._decoders[size] = MapDecoder(anchors, self.strides, size)
        return self._decoders[size]


def granted(threads: int) -> int:
    """The threads asked for, or those that the machine grants: left to itself a runtime starts one for each core of the
    machine, also where one alone is granted."""
    return threads or cpu_threads()


def on_cpu(path: Path, device: torch.device, runtime: str) -> torch.device:
    """The CPU, for runtimes that have no other device; a notice says so where another was asked for."""
    if device.type != "cpu":
        logger.warning("This %s has no %s: running %s on the CPU.", runtime, device.type, path)
    return torch.device("cpu")


def own_precision(path: Path, precision: str) -> None:
    """A notice where a precision was asked for that an exported file cannot change."""
    if precision != "fp32":
        logger.warning("%s runs in the precision that it was exported with, not in %s.", path, precision)


def must_exist(path: Path) -> None:
    """UserError for a file or folder that is not there."""
    if not usable_path(path).exists():
        raise UserError(f"There is no file {path}.")


def must_fit_names(path: Path, metadata: Metadata, gives: Sequence[Shape]) -> None:
    """UserError for rows of another width than the classes ask for, as other exporters' files have them."""
    width = gives[0][-1] if gives else None
    if metadata.output == "decoded" and width != 5 + len(metadata.names):
        raise UserError(
            f"{path} is no detector with decoded rows: it gives {_sides(gives[0]) if gives else 'nothing'} for "
            f"{len(metadata.names)} classes."
        )


def _classes(path: Path, metadata: Metadata, takes: Shape, gives: Sequence[Shape]) -> int:
    """Number of classes by the shapes of the outputs.

    Raises:
        UserError: these are no outputs of a detector.
    """
    found = ", ".join(map(_sides, gives)) or "nothing"
    wrong = UserError(f"{path} is no detector with decoded rows: it maps {_sides(takes)} to {found}.")
    if len(takes) != 4 or not gives:
        raise wrong
    if metadata.output == "raw":
        levels, anchors = len(metadata.anchors), len(metadata.anchors[0]) if metadata.anchors else 0
        width = gives[0][1] if len(gives[0]) == 4 else None
        if not anchors or levels != len(gives) or levels != len(metadata.strides) or width is None:
            raise wrong
        return width // anchors - 5
    if len(gives[0]) != 3:
        raise wrong
    width = gives[0][2]
    if metadata.output == "detections":
        if width not in (None, 6) or not metadata.names:
            raise wrong
        return len(metadata.names)
    if width is not None and width < 6:
        raise wrong
    return width - 5 if width is not None else len(metadata.names)


def _as_rows(boxes: Tensor, nc: int) -> Tensor:
    """Boxes [B, n, 6] (x1, y1, x2, y2, score, class) as decoded rows [B, n, 5 + nc]."""
    centres, sizes = (boxes[..., 0:2] + boxes[..., 2:4]) / 2, boxes[..., 2:4] - boxes[..., 0:2]
    classes = torch.nn.functional.one_hot(boxes[..., 5].long().clamp(0, nc - 1), nc).float()
    return torch.cat((centres, sizes, boxes[..., 4:5], classes), -1)


def _sides(shape: Sequence[int | None]) -> str:
    """1 x 3 x 640 x 640; "any" for sides that are open."""
    return " x ".join("any" if side is None else str(side) for side in shape)
