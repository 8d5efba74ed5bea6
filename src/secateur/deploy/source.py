"""What is exported: a detector made ready, the size of its images, and what the file is to say of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateur.deploy.metadata import Metadata
from secateur.deploy.network import Decoded, Detections, FlatDecoded, HeadMaps
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.families.detection.network import DetectionNetwork
from secateur.families.yolov5.model import Detector

Judge = Callable[[Predictor], float]


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        detector: on CPU, fp32, in evaluation mode; nobody else's.
        size: height and width of the images in pixels.
        about: what else the file says of it: lineage, licence.
        pictures: uint8 [C, H, W] of that size, to quantise on; none without.
        judge: metric of a predictor of that size, where the accuracy of int8 is to be held.
    """

    detector: Any
    size: tuple[int, int]
    about: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Tensor] = ()
    judge: Judge | None = None

    @staticmethod
    def of(
        network: DetectionNetwork,
        size: tuple[int, int],
        about: Mapping[str, str] | None = None,
        pictures: Sequence[Tensor] = (),
        judge: Judge | None = None,
    ) -> Source:
        """A copy of a network, which is left as it is."""
        assert isinstance(network, nn.Module)
        detector: Any = copy.deepcopy(network).cpu().float().eval()
        return Source(detector, size, about or {}, pictures, judge)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.detector.example_inputs()[0].shape[1])

    def example(self, settings: ExportSettings) -> Tensor:
        """Black images float32 [B, C, H, W] as the file takes them."""
        return torch.zeros(settings.batch_size, self.channels, *self.size)

    def network(self, settings: ExportSettings) -> nn.Module:
        """What the file holds: images in 0..1 -> the outputs that the settings ask for.

        Raises:
            UserError: this detector has no such outputs.
        """
        half = settings.precision == "fp16"
        if settings.output == "raw":
            return HeadMaps(self.detector, half)
        family = isinstance(self.detector, Detector) and not settings.any_size
        decoded = FlatDecoded(self.detector, self.size, half) if family else Decoded(self.detector, half)
        if settings.output == "decoded":
            return decoded
        if settings.dynamic:
            raise UserError("Suppression inside a file needs a fixed number of images: leave --dynamic out.")
        return Detections(decoded, settings.nms, settings.batch_size)

    def metadata(self, settings: ExportSettings) -> Metadata:
        """What the file says of itself."""
        head = self.detector.head if isinstance(self.detector, Detector) else None
        anchors = (head.anchors * torch.tensor(head.strides).view(-1, 1, 1)).tolist() if head is not None else []
        return Metadata(
            names={int(index): str(name) for index, name in self.detector.names.items()},
            strides=tuple(float(stride) for stride in self.detector.strides),
            anchors=tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors),
            size=None if settings.any_size else self.size,
            batch=0 if settings.dynamic else settings.batch_size,
            channels=self.channels,
            output=settings.output,
            precision=settings.precision,
            about=self.about,
            own=True,
        )
