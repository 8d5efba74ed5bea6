"""A detection network as a predictor: PyTorch answers images with boxes."""

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
_WHO, _ADVICE = "The network", "take another checkpoint, or fp32"


class TorchPredictor:
    """A network in PyTorch: a fused copy in evaluation mode, on the network's device, channels_last on CPU.

    The network itself and its training flag stay as they are. See `evaluation.predictor.Predictor`.

    Attributes:
        single_cls: the network has one class in place of all classes of its data set.
        narrowed: it has some of the classes that it was trained on.
    """

    def __init__(self, network: nn.Module, precision: str = "fp32") -> None:
        """Takes a copy of the network as it is now.

        Args:
            network: a `DetectionNetwork`.
            precision: "fp32", "bf16" or "fp16"; below fp32 it runs under autocast, and fp16 needs a GPU.

        Raises:
            UserError: unknown precision, or the network cannot answer with boxes.
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
        """Candidates, or final boxes, of each image; see `Predictor`."""
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
        """The boxes that stay; see `Predictor`."""
        choose: Any = best_boxes if self._decides else non_max_suppression
        chosen: list[Tensor] = choose(found, settings, classes)
        return chosen

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """Boxes of each image; see `Predictor`."""
        return self.boxes(self.infer(images, settings.conf), settings)


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
