"""Repair of a cut detector without labels: corrected against the whole one, or its norms re-estimated."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from secateur.compression.images import ContextEvidence, augmented_images
from secateur.families.context import Context
from secateur.families.yolov5.model import Detector
from secateur.networks.architecture import channels_of
from secateur.pruning.repair import Repair, reestimate_batchnorm_
from secateur.pruning.settings import RepairSettings


def repair_of(
    whole: Detector, context: Context, settings: RepairSettings, masked: Iterable[str] = ()
) -> Repair[Detector]:
    """The repair of cuts of a detector with the context's images.

    Args:
        whole: the detector before the cut, on the context's device; it is left as it is.
        masked: names of tensors some of whose weights are to stay zero.
    """
    evidence = ContextEvidence.of(context, whole)
    return Repair(whole, evidence, settings, masked, has_loss=isinstance(whole, Detector))


def refresh_norms_(detector: nn.Module, context: Context, settings: RepairSettings) -> None:
    """Moves the BatchNorm statistics towards those of augmented training images, without labels."""
    if not settings.recalibrate or context.pictures is None:
        return
    # The statistics stand for what the training showed, so the images are augmented as there.
    count = max(settings.recalibrate // context.batch_size, 1)
    images = augmented_images(context, settings.recalibrate, channels=channels_of(detector))
    reestimate_batchnorm_(detector, images, count, share=settings.recalibrate_share)
