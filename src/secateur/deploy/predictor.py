"""Base class of the predictors of all exported files: batching, and decoding by the network's family."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.deploy.layouts import opens, own_decoder, recognised, sides
from secateur.deploy.metadata import Metadata
from secateur.errors import UserError, told
from secateur.evaluation.nms import Candidates, best_boxes, non_max_suppression
from secateur.evaluation.predictor import NOT_FINITE, AnswerError, check_boxes, check_candidates
from secateur.evaluation.settings import PREDICTION, NmsSettings
from secateur.families.outputs import Answer, Decoder, Shape
from secateur.files import usable_path
from secateur.machine import cpu_threads

logger = logging.getLogger("secateur")

_ADVICE = "export it again, in fp32 if it is in fp16 or int8"
_UNKNOWN_SIZES = ((256, 384), (640, 640))
"""Image sizes for testing a foreign file that accepts any; the second is for files that reject the first."""


class FilePredictor:
    """An exported network; subclasses implement `run`. That of a detector is an `evaluation.predictor.Predictor`.

    Attributes:
        path: the file or folder.
        metadata: its metadata.
        gives: shapes of its outputs, None for dynamic dimensions.
        decoder: decoder of its outputs; None if `outputs` returns them without decoding.
        names, nc: classes if stated in the metadata; placeholder names otherwise.
        channels: channels of the images.
        strides: stride of each level in pixels.
        image_size: height and width; None if any size is accepted.
        batch: batch size; None if it is dynamic.
        device: device that it runs on.
        threads: threads within an operator on the CPU.
    """

    used: int | None = None
    """Number of leading outputs that `run` returns; None for all. YOLOv5's own files append feature maps to the
    rows.
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
        answer: Answer | None = None,
    ) -> None:
        """Checks that the file can be read. A foreign file runs once, on black images.

        Args:
            path: the file or folder.
            metadata: its metadata.
            takes: shape of its input, None for dynamic dimensions; () if it does not have exactly one input.
            gives: shapes of its outputs.
            device: device that it runs on.
            threads: threads within an operator on the CPU.
            answer: outputs for black images, if it already ran on them.

        Raises:
            UserError: the file is not a supported network.
        """
        self.path, self.metadata, self.device, self.threads = path, metadata, device, threads
        self._takes = takes
        self.gives = tuple(gives)
        self.decoder: Decoder | None
        if metadata.own:
            self.decoder = own_decoder(path, metadata, takes, gives)
        else:
            self.decoder = recognised(path, takes, answer or self._answer(), metadata)
        self.nc, self.strides = len(metadata.names), metadata.strides
        if self.decoder is not None:
            self.used, self.nc, self.strides = self.decoder.used, self.decoder.nc, self.decoder.strides
        self.names = {i: metadata.names.get(i, f"class{i}") for i in range(self.nc)}
        self.channels = metadata.channels if takes[1] is None else takes[1]
        self.single_cls, self.narrowed = metadata.single_cls, metadata.narrowed
        self.batch = takes[0]
        height, width = takes[2], takes[3]
        self.image_size = (height, width) if height is not None and width is not None else None

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Runs one batch: images float32 [B, C, H, W] in 0..1 -> the outputs of the file."""
        raise NotImplementedError

    def outputs(self, images: Tensor) -> list[NDArray[np.float32]]:
        """Images float32 [B, C, H, W] in 0..1, in any number -> each output of the file for all images.

        Raises:
            UserError: the file does not accept images of this size.
        """
        pixels = images.cpu().numpy().astype(np.float32, copy=False)
        if any(
            side is not None and side != given for side, given in zip(self._takes[1:], pixels.shape[1:], strict=True)
        ):
            raise UserError(f"{self.path} accepts images of shape {sides(self._takes)}, not {sides(pixels.shape)}.")
        count = self.batch or len(pixels)
        found: list[list[NDArray[np.float32]]] = []
        for start in range(0, len(pixels), count):
            part = pixels[start : start + count]
            if len(part) < count:
                part = np.concatenate((part, np.zeros((count - len(part), *part.shape[1:]), part.dtype)))
            found.append([output.astype(np.float32, copy=False) for output in self.run(np.ascontiguousarray(part))])
        return [np.concatenate(parts)[: len(pixels)] for parts in zip(*found, strict=True)]

    def infer(self, images: Tensor, confidence: float) -> Any:
        """Candidates for images float32 [B, C, H, W] in 0..1, as `boxes` takes them (see `Predictor`). Without a
        decoder, the outputs.

        Raises:
            UserError: the file does not accept images of this size.
            AnswerError: the outputs cannot be boxes, or are not finite.
        """
        outputs = [torch.from_numpy(output) for output in self.outputs(images)]
        for output in outputs:
            # A finite sum implies finite values and takes a fiftieth of the time of checking each value.
            if not math.isfinite(float(output.sum())):
                self._check(torch.isfinite(output), NOT_FINITE)
        if self.decoder is None:
            return outputs
        found = self.decoder(outputs, (images.shape[2], images.shape[3]), confidence)
        if self.decoder.final:
            check_boxes(found, self.nc, str(self.path), _ADVICE)
        elif all(isinstance(entry, Candidates) for entry in found):
            check_candidates(found, str(self.path), _ADVICE)
        return found

    def boxes(
        self, found: Any, settings: NmsSettings = PREDICTION, classes: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The final boxes, each [n, 6]; see `Predictor`.

        Raises:
            UserError: the outputs of the file are not boxes.
        """
        if self.decoder is None:
            raise UserError(f"The {len(self.gives)} outputs of {self.path} are not boxes. Read them with `outputs`.")
        return (best_boxes if self.decoder.final else non_max_suppression)(found, settings, classes)

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """The final boxes [n, 6] of each image; images are float32 [B, C, H, W] in 0..1. See `Predictor`."""
        return self.boxes(self.infer(images, settings.conf), settings)

    def _check(self, sound: Tensor, fault: str) -> None:
        """Raises AnswerError for the first image of the bool tensor `sound` [B, ...] with a False value."""
        good = sound.flatten(1).all(dim=1)
        if not bool(good.all()):
            raise AnswerError(str(self.path), fault, int((~good).nonzero()[0]), _ADVICE)

    def _answer(self) -> Answer:
        """The outputs for black images.

        Raises:
            UserError: the input is not images, or the file fails on them.
        """
        takes = self._takes
        if len(takes) != 4 or takes[1] not in (1, 3, None):
            raise UserError(f"Cannot read {self.path}: its input is {sides(takes)}. {opens()}.")
        failure = ""
        for height, width in [self.metadata.size] if self.metadata.size else _UNKNOWN_SIZES:
            size = takes[2] or height, takes[3] or width
            shape = (takes[0] or 1, takes[1] or self.metadata.channels, *size)
            try:
                outputs = [np.asarray(output, np.float32) for output in self.run(np.zeros(shape, np.float32))]
            except Exception as error:  # each runtime raises its own exceptions
                failure = f"{sides(shape)}: {told(error)}"
                continue
            says = self.metadata
            return Answer(says.stated, shape[0], size, outputs, says.task, says.strides)
        raise UserError(f"{self.path} fails on images of {failure}")


def granted(threads: int) -> int:
    """The requested number of threads, or the CPUs granted to the process. Without a number, runtimes start one thread
    per core of the machine, even if only one is granted.
    """
    return threads or cpu_threads()


def on_cpu(path: Path, device: torch.device, runtime: str) -> torch.device:
    """The CPU, for runtimes without other devices. Logs a notice if another device was requested."""
    if device.type != "cpu":
        logger.warning("%s has no %s on this machine: running %s on the CPU.", runtime, device.type, path)
    return torch.device("cpu")


def own_precision(path: Path, precision: str) -> None:
    """Logs a notice if a precision is requested that an exported file cannot change."""
    if precision != "fp32":
        logger.warning("%s runs in the precision of its export, not in %s.", path, precision)


def must_exist(path: Path) -> None:
    """Raises UserError if a file or folder does not exist."""
    if not usable_path(path).exists():
        raise UserError(f"There is no file {path}.")
