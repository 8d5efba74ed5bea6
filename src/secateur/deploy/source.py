"""The input of an export: a network, its image size, and the metadata for the file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.deploy.metadata import Metadata
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.families.family import Family, family_of
from secateur.families.outputs import DETECTIONS, Form, Outputs
from secateur.networks.architecture import channels_of, names_of, strides_of
from secateur.terminal import silenced

Judge = Callable[[Predictor], float]


@dataclass(frozen=True)
class Source:
    """The input of an export.

    Attributes:
        whole: a copy of the network, on the CPU, in fp32, in evaluation mode.
        size: height and width of the images in pixels.
        channels: channels of the images.
        about: additional metadata: lineage, licence.
        images: calibration images, uint8 [C, H, W] of that size; may be empty.
        judge: returns the metric of a predictor of that size, to limit the accuracy loss of int8; may be None.
    """

    whole: nn.Module
    size: tuple[int, int]
    channels: int
    about: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[Tensor] = ()
    judge: Judge | None = None
    _made: dict[Form, Outputs] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def of(
        network: nn.Module,
        size: tuple[int, int],
        about: Mapping[str, str] | None = None,
        images: Sequence[Tensor] = (),
        judge: Judge | None = None,
        channels: int = 0,
    ) -> Source:
        """Copies a network, which is not changed. With `channels` 0, the network's own number of channels is used."""
        whole = copy.deepcopy(network).cpu().float().eval()
        return Source(whole, size, channels or channels_of(network), about or {}, images, judge)

    @property
    def family(self) -> Family:
        """The network's family."""
        return family_of(self.whole)

    def example(self, settings: ExportSettings) -> Tensor:
        """Black images float32 [B, C, H, W], as the file takes them."""
        return torch.zeros(settings.batch_size, self.channels, *self.size)

    def calibration(self, batch: int) -> Iterator[NDArray[np.float32]]:
        """Calibration batches: prepared images float32 [batch, C, H, W]. The last batch is filled up with the first
        images.
        """
        for start in range(0, len(self.images), batch):
            chosen = [self.images[(start + place) % len(self.images)] for place in range(batch)]
            yield self.family.prepare(torch.stack(chosen)).numpy()

    def outputs(self, settings: ExportSettings) -> Outputs:
        """The outputs of the file, defined by the family.

        Raises:
            UserError: the network does not have such outputs.
        """
        if settings.dynamic and settings.output == DETECTIONS:
            raise UserError("Suppression inside the file needs a fixed batch size. Remove --dynamic.")
        half = settings.precision == "fp16"
        form = Form(settings.output, self.size, settings.batch_size, settings.any_size, half, settings.nms)
        if form not in self._made:
            outputs = self.family.outputs(self.whole, form)
            _pad_by_concatenation(outputs.network)
            self._made[form] = outputs
        return self._made[form]

    def network(self, settings: ExportSettings) -> nn.Module:
        """The module to export: prepared images -> a tensor or a list of tensors; see `outputs`."""
        return self.outputs(settings).network

    def traced(self, settings: ExportSettings, title: str) -> torch.jit.ScriptModule:
        """The module of `network` as TorchScript, the starting point of several formats.

        Args:
            settings: settings of the export.
            title: display name of the format, for error messages.

        Raises:
            UserError: the network cannot be traced.
        """
        network, example = self.network(settings).eval(), self.example(settings)
        with silenced(), torch.no_grad():
            try:
                # Not strict, because outputs may be a list. The check of each export is stronger than the tracer's own.
                traced: Any = torch.jit.trace(network, example, strict=False, check_trace=False)
            except Exception as error:  # the tracer raises exceptions of many types
                raise cannot(title, error) from error
        return traced

    def metadata(self, settings: ExportSettings) -> Metadata:
        """The metadata for the file."""
        return Metadata(
            names={int(index): str(name) for index, name in names_of(self.whole).items()},
            strides=tuple(float(stride) for stride in strides_of(self.whole)),
            size=None if settings.any_size else self.size,
            batch=0 if settings.dynamic else settings.batch_size,
            channels=self.channels,
            family=self.family.kind,
            output=settings.output,
            precision=settings.precision,
            told={**self.about, **self.outputs(settings).metadata},
            own=True,
        )


def cannot(title: str, error: Exception) -> UserError:
    """The error for a network that a format cannot express, with the reason from the converter."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return UserError(f"This network cannot be exported to {title}: {reason}.")


class _ZeroBorder(nn.Module):
    """Zero padding by concatenation.

    ONNX Runtime's optimiser fuses Pad into a following MaxPool, whose border is minus infinity rather than zero, which
    changes the result (observed with 1.31 on yolov3-tiny). It does not fuse Concat.
    """

    def __init__(self, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.left, self.right, self.top, self.bottom = padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, top + H + bottom, left + W + right]."""
        column = torch.zeros_like(x[..., :1])
        x = torch.cat((*(column,) * self.left, x, *(column,) * self.right), dim=3)
        row = torch.zeros_like(x[..., :1, :])
        return torch.cat((*(row,) * self.top, x, *(row,) * self.bottom), dim=2)


def _pad_by_concatenation(network: nn.Module) -> None:
    """Replaces every zero padding by `_ZeroBorder`, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ZeroPad2d):
                setattr(parent, name, _ZeroBorder(child.padding))
