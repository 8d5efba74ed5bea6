"""What answers images with boxes: the protocol that validation, bench and prediction know, and PyTorch's side of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.errors import UserError, shown
from secateur.evaluation.nms import non_max_suppression
from secateur.evaluation.settings import PRECISIONS, PREDICTION, NmsSettings
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import NEUTRAL_ANCHORS
from secateur.networks.architecture import DetectionNetwork

logger = logging.getLogger("secateur")

NOT_FINITE = "values that are not finite"
SCORE_SLACK = 0.1
"""How far a score may be outside 0..1: quantised files round."""
_PRECISIONS = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))


class AnswerError(UserError):
    """What a predictor answers for an image cannot be boxes.

    Attributes:
        image: number of the image in its batch.
    """

    def __init__(self, who: str, fault: str, image: int, advice: str) -> None:
        super().__init__(f"{who} gives {fault}; {advice}.")
        self.image = image
        self._told = who, fault, advice

    def named(self, image: object) -> UserError:
        """The same with the name of the image."""
        who, fault, advice = self._told
        return UserError(f"{who} gives {fault} for {image}; {advice}.")


def check_rows(found: Sequence[Tensor], who: str, advice: str) -> None:
    """Refuses decoded rows [n, 5 + nc] of each image of a batch that no detector gives.

    Raises:
        AnswerError: a value is not finite, a width or height is negative, or a score is outside 0..1.
    """
    if not any(map(len, found)):
        return
    together = torch.cat(list(found))
    sizes, scores = together[:, 2:4], together[:, 4:]
    # One transfer from a GPU; a sum reads values faster than a look at each, and is finite where they are.
    total, size, low, high = torch.stack((together.sum(), sizes.min(), scores.min(), scores.max())).tolist()
    if math.isfinite(total) and size >= 0 and low >= -SCORE_SLACK and high <= 1 + SCORE_SLACK:
        return
    for image, rows in enumerate(found):
        if not bool(rows.isfinite().all()):
            raise AnswerError(who, NOT_FINITE, image, advice)
        if bool((rows[:, 2:4] < 0).any()):
            raise AnswerError(who, "a box of negative width or height", image, advice)
        if bool(((rows[:, 4:] < -SCORE_SLACK) | (rows[:, 4:] > 1 + SCORE_SLACK)).any()):
            raise AnswerError(who, "scores outside 0..1", image, advice)


@runtime_checkable
class Predictor(Protocol):
    """A detector that can be asked, whatever runs it. It is made once, for one device and precision."""

    @property
    def names(self) -> Mapping[int, str]:
        """Class names by id."""

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def channels(self) -> int:
        """Channels of the images: 3, or 1 for grey."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image for one cell of each level; the sides of images are multiples of the largest."""

    @property
    def image_size(self) -> int | tuple[int, int] | None:
        """Side, or height and width, of the only images it takes; None where any multiple of the stride will do."""

    @property
    def device(self) -> torch.device:
        """Where images are best put."""

    def rows(self, images: Tensor, confidence: float) -> Sequence[Tensor]:
        """Of each image in [B, C, H, W] (float32 in 0..1) the decoded rows float32 [n, 5 + nc] with objectness above
        `confidence`: centre x, centre y, width, height in pixels, objectness, class scores.

        Raises:
            AnswerError: an answer cannot be boxes.
        """

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """Of each image in [B, C, H, W] (float32 in 0..1) the boxes float32 [n, 6] that stay: x1, y1, x2, y2 in pixels,
        score, class; best score first."""


class TorchPredictor:
    """A network in PyTorch: a fused copy in evaluation mode, on the network's device, channels_last on CPU.

    The network itself and its training flag stay as they are.
    """

    def __init__(self, network: DetectionNetwork, precision: str = "fp32", *, single_cls: bool = False) -> None:
        """Takes a copy of the network as it is now.

        Args:
            network: what is asked.
            precision: "fp32", "bf16" or "fp16"; below fp32 it runs under autocast, and fp16 needs a GPU.
            single_cls: the network has one class in place of all classes of its data set.

        Raises:
            UserError: unknown precision.
        """
        assert isinstance(network, nn.Module)
        self.names = dict(network.names)
        self.nc, self.strides = network.nc, network.strides
        self.channels = int(network.example_inputs()[0].shape[1])
        self.single_cls = single_cls
        self.image_size: int | tuple[int, int] | None = None
        self.device = next(network.parameters()).device
        self._precision = _precision(precision, self.device)
        self._network = network.fused()
        if isinstance(network, Detector) and network.topology.anchors_pending:
            logger.warning(NEUTRAL_ANCHORS)
        if self.device.type == "cpu":
            _channels_last_(self._network)

    def rows(self, images: Tensor, confidence: float) -> Sequence[Tensor]:
        """Decoded rows of each image with objectness above `confidence`; see `Predictor`."""
        layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        images = images.to(self.device, memory_format=layout)
        reduced = self._precision is not torch.float32
        with torch.inference_mode():
            with torch.autocast(self.device.type, dtype=self._precision, enabled=reduced):
                raw = self._network(images)
            found = self._network.decode_above(raw, confidence)
        check_rows(found, "The network", "take another checkpoint, or fp32")
        return found

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """Boxes of each image; see `Predictor`."""
        return non_max_suppression(self.rows(images, settings.conf), settings)


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name not in _PRECISIONS:
        raise UserError(f"Unknown precision {shown(name)}; choose one of {', '.join(_PRECISIONS)}.")
    if name == "fp16" and device.type == "cpu":
        logger.warning("fp16 needs a GPU: computing in fp32.")
        name = "fp32"
    return _PRECISIONS[name]


def _channels_last_(network: nn.Module) -> None:
    """Lays the weights of convolutions out channels_last, in place."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
