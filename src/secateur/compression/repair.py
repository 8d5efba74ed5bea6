"""Repair of a cut detector without labels: what is left is mended beside the whole one, or its norms re-estimated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import islice

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.compression.context import Context
from secateur.compression.images import augmented_images, labelled_images, unpadded_images
from secateur.detector.architecture import DetectionNetwork
from secateur.detector.model import Detector
from secateur.machine import return_memory
from secateur.pruning.graph.inputs import WithStrides
from secateur.pruning.plan import Plan
from secateur.pruning.repair import (
    Moments,
    Shorter,
    correct_,
    counterparts,
    moments_of_inputs,
    reconstruct_,
    reestimate_batchnorm_,
)
from secateur.pruning.settings import RepairSettings

LOG = logging.getLogger("secateur")
READING = 2_000_000
"""Number of the draw of pictures on which the moments are measured: not those that score or correct."""


class Mending:
    """What is mended in cuts of one detector beside itself: weights of layers that lost inputs, statistics of norms.

    Args:
        whole: the detector before the cut, on the context's device; it is left as it is.
        masked: names of tensors some of whose weights are to stay zero; those layers are not reconstructed.
    """

    def __init__(self, whole: Detector, context: Context, settings: RepairSettings, masked: Iterable[str] = ()) -> None:
        self.whole, self.context, self.settings = whole, context, settings
        self.masked = [name.removesuffix(".weight") for name in masked]

    @property
    def possible(self) -> bool:
        """Whether it is wanted and there are pictures."""
        settings = self.settings
        return settings.norms == "paired" and settings.recalibrate > 0 and self.context.pictures is not None

    @cached_property
    def moments(self) -> Mapping[str, Moments]:
        """What the layers of the whole detector read, measured when first asked for.

        Empty where it is not wanted, and for a detector that has no loss of its own to say which places matter.
        """
        if not (self.possible and self.settings.reconstruct and isinstance(self.whole, Detector)):
            return {}
        half = -(-self.settings.recalibrate // 2)
        batches, loss = labelled_images(self.whole, self.context, half, draw=READING, strict=False)
        size = min(self.context.batch_size, half)
        return_memory()
        return moments_of_inputs(self.whole, islice(batches, -(-half // size)), loss, self.masked)

    def images(self, limit: int, draw: int = 0) -> Iterable[Tensor]:
        """Pictures [B, C, H, W] in 0..1 on the device, at most `limit`; none where there are none."""
        if self.context.pictures is None or not limit:
            return ()
        # A network that tells no strides sees square images: its maps may not fit together at other sides.
        stride = int(max(self.whole.strides)) if isinstance(self.whole, WithStrides) else self.context.image_size
        return unpadded_images(self.context, stride, limit, draw, channels=_channels(self.whole))

    def __call__(self, smaller: Detector, plan: Plan, shorter: Shorter | None = None, limit: int | None = None) -> None:
        """Mends in place what `plan` left of the detector, where it is wanted and there are pictures; see `mend_`.

        Args:
            limit: as there; None: what the settings say. This is the last repair of a cut, and it says what it can do.
        """
        if self.possible:
            self.mend_(smaller, plan, shorter, self.settings.recalibrate if limit is None else limit)
            if limit is None and not any(isinstance(module, _BatchNorm) for module in self.whole.modules()):
                what = "layers that lost inputs are reconstructed" if self.moments else "nothing is repaired"
                LOG.info("The network has no batch norm whose statistics could be corrected: %s.", what)

    def mend_(self, smaller: Detector, plan: Plan, shorter: Shorter | None, limit: int, draw: int = 0) -> None:
        """Weights of layers that lost inputs, then statistics of norms, beside the whole detector.

        Args:
            shorter: the detector without the removed blocks and its graph, where they are at hand.
            limit: pictures on which norms are corrected.
            draw: which pictures these are.
        """
        narrower = any(0 < len(layer.kept) < layer.total for layer in plan.layers)
        if narrower and self.moments:
            reconstruct_(smaller, self.whole, plan, self.moments, shorter)
        pairs, images = counterparts(self.whole, plan, shorter), self.images(limit, draw)
        correct_(smaller, self.whole, pairs, images, share=self.settings.recalibrate_share)


def refresh_norms_(detector: Detector, context: Context, settings: RepairSettings) -> None:
    """Moves the BatchNorm statistics towards those of augmented training images, without labels."""
    if not settings.recalibrate or context.pictures is None:
        return
    # The statistics stand for what the training showed, so the images are augmented as there.
    count = max(settings.recalibrate // context.batch_size, 1)
    images = augmented_images(context, settings.recalibrate, channels=_channels(detector))
    reestimate_batchnorm_(detector, images, count, share=settings.recalibrate_share)


def _channels(network: nn.Module) -> int:
    """Channels of the images that a network reads: those of a photo where it does not tell."""
    return network.architecture.channels if isinstance(network, DetectionNetwork) else 3
