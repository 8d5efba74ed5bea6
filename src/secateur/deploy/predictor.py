"""What the predictors of all exported files share: batches of the file's size, and answers as its family reads them."""

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

_ADVICE = "export it anew, in fp32 if it is in fp16 or int8"
_UNKNOWN_SIZES = ((256, 384), (640, 640))
"""Height and width of the images that a foreign file is tried on which takes any; the second for files that do not."""


class FilePredictor:
    """An exported network; a runtime gives it `run`. A detector's is an `evaluation.predictor.Predictor`.

    Attributes:
        path: the file or folder.
        metadata: what it says of itself.
        gives: shapes of its outputs, None for sides that are open.
        decoder: how its outputs are read; None where they are taken as they are, with `outputs`.
        names, nc: classes, as far as the file tells them; made-up names otherwise.
        channels: of the images.
        strides: pixels of a cell of each level.
        image_size: height and width; None where any size goes.
        batch: images of a call; None where any number goes.
        device: where it runs.
        threads: threads inside an operator on CPU.
    """

    used: int | None = None
    """How many outputs `run` gives, the first ones; None for all. YOLOv5's own files have maps behind the rows."""

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
        """Checks that the file can be read; a foreign one is run once, on black images.

        Args:
            takes: shape of its input, None for sides that are open; () where it has not one input.
            gives: shapes of its outputs.
            answer: to black images, where it was run already.

        Raises:
            UserError: it is none.
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
            raise UserError(f"{self.path} takes images of shape {sides(self._takes)}, not {sides(pixels.shape)}.")
        count = self.batch or len(pixels)
        found: list[list[NDArray[np.float32]]] = []
        for start in range(0, len(pixels), count):
            part = pixels[start : start + count]
            if len(part) < count:
                part = np.concatenate((part, np.zeros((count - len(part), *part.shape[1:]), part.dtype)))
            found.append([output.astype(np.float32, copy=False) for output in self.run(np.ascontiguousarray(part))])
        return [np.concatenate(parts)[: len(pixels)] for parts in zip(*found, strict=True)]

    def infer(self, images: Tensor, confidence: float) -> Any:
        """What the network proposes for images, as `boxes` reads it (see `Predictor`); without a decoder the outputs.

        Raises:
            UserError: the file does not take images of this size.
            AnswerError: what it answers cannot be boxes, or is not finite.
        """
        outputs = [torch.from_numpy(output) for output in self.outputs(images)]
        for output in outputs:
            # A finite sum is one of finite values, and takes a fiftieth of the time of a look at each of them.
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
        """The boxes that stay; see `Predictor`.

        Raises:
            UserError: the outputs of the file are no boxes.
        """
        if self.decoder is None:
            raise UserError(f"{self.path} gives {len(self.gives)} tensors that are no boxes; read them with `outputs`.")
        return (best_boxes if self.decoder.final else non_max_suppression)(found, settings, classes)

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """Boxes of each image; see `Predictor`."""
        return self.boxes(self.infer(images, settings.conf), settings)

    def _check(self, sound: Tensor, fault: str) -> None:
        """AnswerError for the first image of [B, ...] for which not every value is sound."""
        good = sound.flatten(1).all(dim=1)
        if not bool(good.all()):
            raise AnswerError(str(self.path), fault, int((~good).nonzero()[0]), _ADVICE)

    def _answer(self) -> Answer:
        """What the file gives for black images.

        Raises:
            UserError: it takes no images, or does not run on them.
        """
        takes = self._takes
        if len(takes) != 4 or takes[1] not in (1, 3, None):
            raise UserError(f"{self.path} is no file that Secateur reads: it takes {sides(takes)}; {opens()}.")
        failure = ""
        for height, width in [self.metadata.size] if self.metadata.size else _UNKNOWN_SIZES:
            size = takes[2] or height, takes[3] or width
            shape = (takes[0] or 1, takes[1] or self.metadata.channels, *size)
            try:
                outputs = [np.asarray(output, np.float32) for output in self.run(np.zeros(shape, np.float32))]
            except Exception as error:  # each runtime raises errors of its own
                failure = f"{sides(shape)}: {told(error)}"
                continue
            says = self.metadata
            return Answer(says.stated, shape[0], size, outputs, says.task, says.strides)
        raise UserError(f"{self.path} does not run on images of {failure}")


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
