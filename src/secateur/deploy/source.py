"""What is exported: a network, the size of its images, and what the file is to say of them."""

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
    """What is exported.

    Attributes:
        whole: the network, on the CPU, fp32, in evaluation mode; a copy of its own.
        size: height and width of the images in pixels.
        channels: of the images.
        about: what else the file says of it: lineage, licence.
        images: uint8 [C, H, W] of that size, to quantise on; none without.
        judge: metric of a predictor of that size, where the accuracy of int8 is to be held.
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
        """A copy of a network, which is left as it is; 0 channels are those that the network tells."""
        whole = copy.deepcopy(network).cpu().float().eval()
        return Source(whole, size, channels or channels_of(network), about or {}, images, judge)

    @property
    def family(self) -> Family:
        """The network's family."""
        return family_of(self.whole)

    def example(self, settings: ExportSettings) -> Tensor:
        """Black images float32 [B, C, H, W] as the file takes them."""
        return torch.zeros(settings.batch_size, self.channels, *self.size)

    def calibration(self, batch: int) -> Iterator[NDArray[np.float32]]:
        """The images as a call takes them: prepared [batch, C, H, W]; the first ones fill a last batch up."""
        for start in range(0, len(self.images), batch):
            chosen = [self.images[(start + place) % len(self.images)] for place in range(batch)]
            yield self.family.prepare(torch.stack(chosen)).numpy()

    def outputs(self, settings: ExportSettings) -> Outputs:
        """What the file gives, as the family says.

        Raises:
            UserError: this network has no such outputs.
        """
        if settings.dynamic and settings.output == DETECTIONS:
            raise UserError("Suppression inside a file needs a fixed number of images: leave --dynamic out.")
        half = settings.precision == "fp16"
        form = Form(settings.output, self.size, settings.batch_size, settings.any_size, half, settings.nms)
        if form not in self._made:
            outputs = self.family.outputs(self.whole, form)
            _pad_by_concatenation(outputs.network)
            self._made[form] = outputs
        return self._made[form]

    def network(self, settings: ExportSettings) -> nn.Module:
        """What the file holds: prepared images -> a tensor or a list of tensors; see `outputs`."""
        return self.outputs(settings).network

    def traced(self, settings: ExportSettings, title: str) -> torch.jit.ScriptModule:
        """What `network` gives as TorchScript, from which several formats start.

        Args:
            title: the format, for sentences.

        Raises:
            UserError: the network cannot be traced.
        """
        network, example = self.network(settings).eval(), self.example(settings)
        with silenced(), torch.no_grad():
            try:
                # Not strict: outputs may be a list. The check of every export is better than the tracer's.
                traced: Any = torch.jit.trace(network, example, strict=False, check_trace=False)
            except Exception as error:  # the tracer raises exceptions of many types
                raise cannot(title, error) from error
        return traced

    def metadata(self, settings: ExportSettings) -> Metadata:
        """What the file says of itself."""
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
    """The error of a format that cannot express a network, with what its converter said."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return UserError(f"This network cannot be exported to {title}: {reason}.")


class _ZeroBorder(nn.Module):
    """Zero padding by concatenation.

    ONNX Runtime's optimiser fuses Pad into a MaxPool behind it, whose border is minus infinity and not zero, and so
    changes what comes out (seen with 1.31 on yolov3-tiny); it does not fuse a Concat.
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
    """Puts `_ZeroBorder` in the place of every zero padding, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ZeroPad2d):
                setattr(parent, name, _ZeroBorder(child.padding))
