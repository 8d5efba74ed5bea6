"""Repair of a cut network without labels: corrected against the whole one, or its norms re-estimated."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from secateur.families.context import Context
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import family_of
from secateur.pruning.repair import Repair, reestimate_batchnorm_
from secateur.pruning.settings import RepairSettings


def repair_of(
    whole: nn.Module, context: Context, settings: RepairSettings, masked: Iterable[str] = ()
) -> Repair[nn.Module]:
    """The repair of cuts of a network with the context's images.

    Args:
        whole: the network before the cut, on the context's device; it is left as it is.
        masked: names of tensors some of whose weights are to stay zero.
    """
    evidence = FamilyEvidence.of(context, whole)
    return Repair(whole, evidence, settings, masked, has_loss=_can_be_scored(whole, context))


def reestimate_norms_(network: nn.Module, context: Context, settings: RepairSettings) -> None:
    """Moves the BatchNorm statistics towards those of augmented training images, without labels."""
    if not settings.correction_images or context.image_source is None:
        return
    # The statistics stand for what the training showed, so the images are augmented as there.
    count = max(settings.correction_images // context.batch_size, 1)
    images = FamilyEvidence(context, network).augmented(settings.correction_images)
    reestimate_batchnorm_(network, images, count, share=settings.correction_share)


def _can_be_scored(whole: nn.Module, context: Context) -> bool:
    """Whether the loss of the context's images can be had: from labels, or from what the network itself believes."""
    family, data = family_of(whole), context.image_source
    return family.knows("loss") and data is not None and (data.labelled or family.knows("own_labels"))
