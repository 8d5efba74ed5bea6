"""Predicts boxes with a detection network in PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UserError, shown
from secateur.evaluation.nms import Candidates, best_boxes, non_max_suppression
from secateur.evaluation.predictor import check_boxes, check_candidates
from secateur.evaluation.settings import PRECISIONS, PREDICTION, NmsSettings
from secateur.families.detection.network import check_detector, decides
from secateur.networks.architecture import channels_of, fused

logger = logging.getLogger("secateur")

_PRECISIONS = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))
_WHO, _ADVICE = "The network", "use another checkpoint, or fp32"


class TorchPredictor:
    """A network in PyTorch as a predictor: a fused copy in eval mode on the device of the network, channels_last on the
    CPU.

    Images are float32 [B, C, H, W] in 0..1. The given network and its training flag are not changed. See
    `evaluation.predictor.Predictor`.

    Attributes:
        single_cls: the network has a single class that replaces all classes of its data set.
        narrowed: the network was reduced to some of its classes.
    """

    def __init__(self, network: nn.Module, precision: str = "fp32") -> None:
        """Copies the network in its current state.

        Args:
            network: a `DetectionNetwork`.
            precision: "fp32", "bf16" or "fp16"; below fp32 it runs under autocast, and fp16 needs a GPU.

        Raises:
            UserError: the precision is unknown, or the network cannot predict boxes.
        """
        check_detector(network)
        known: Any = network
        self.names = dict(known.names)
        self.nc, self.strides = int(known.nc), tuple(known.strides)
        self.channels = channels_of(network)
        self.single_cls = self.narrowed = False
        self.image_size: int | tuple[int, int] | None = None
        self.device = next(network.parameters()).device
        self._precision = _precision(precision, self.device)
        self._network: Any = fused(network)
        self._decides = decides(network)
        if self.device.type == "cpu":
            _channels_last_(self._network)

    def infer(self, images: Tensor, confidence: float) -> Sequence[Candidates] | Sequence[Tensor]:
        """Candidates or final boxes [n, 6] of each image; see `Predictor`."""
        layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        images = images.to(self.device, memory_format=layout)
        reduced = self._precision is not torch.float32
        with torch.inference_mode():
            with torch.autocast(self.device.type, dtype=self._precision, enabled=reduced):
                raw = self._network(images)
            if self._decides:
                final = [boxes.float() for boxes in self._network.boxes(raw)]
                check_boxes(final, self.nc, _WHO, _ADVICE)
                return final
            found = [Candidates(*of_image) for of_image in self._network.candidates(raw, confidence)]
        check_candidates(found, _WHO, _ADVICE)
        return found

    def boxes(
        self, found: Any, settings: NmsSettings = PREDICTION, classes: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Boxes [n, 6] of each image after suppression; see `Predictor`."""
        choose: Any = best_boxes if self._decides else non_max_suppression
        chosen: list[Tensor] = choose(found, settings, classes)
        return chosen

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """Boxes [n, 6] of each image; see `Predictor`."""
        return self.boxes(self.infer(images, settings.conf), settings)


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name not in _PRECISIONS:
        raise UserError(f"Unknown precision {shown(name)}. Choose one of: {', '.join(_PRECISIONS)}.")
    if name == "fp16" and device.type == "cpu":
        logger.warning("fp16 needs a GPU. Using fp32 instead.")
        name = "fp32"
    return _PRECISIONS[name]


def _channels_last_(network: nn.Module) -> None:
    """Converts weights of convolutions to channels_last, in place."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
