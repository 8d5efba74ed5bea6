"""The repair of cuts of one network, with what it needs measured once: weights first, then statistics of norms."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Generic, TypeVar

from torch import nn

from secateur.machine import return_memory
from secateur.pruning.evidence import Evidence, device_of
from secateur.pruning.plan import Plan
from secateur.pruning.repair.correction import Shorter, correct_, counterparts
from secateur.pruning.repair.norms import reestimate_batchnorm_
from secateur.pruning.repair.reconstruction import Moments, moments_of_inputs, reconstruct_
from secateur.pruning.settings import RepairSettings
from secateur.terminal import counted

LOG = logging.getLogger("secateur")
Network = TypeVar("Network", bound=nn.Module)
READING = 2_000_000
"""Number of the draw of images on which the moments are measured: not those that score or correct."""


class Repair(Generic[Network]):
    """Repairs what cuts leave of one network, against the whole one.

    Args:
        whole: the network before the cut, where it computes; it is left as it is.
        evidence: None where there are no images.
        masked: names of tensors some of whose weights are to stay zero; those layers are not reconstructed.
    """

    def __init__(
        self,
        whole: Network,
        evidence: Evidence[Network] | None,
        settings: RepairSettings,
        masked: Iterable[str] = (),
    ) -> None:
        self.whole, self.evidence, self.settings = whole, evidence, settings
        self.masked = [name.removesuffix(".weight") for name in masked]
        self._said = False

    @property
    def possible(self) -> bool:
        """Whether a cut is to be repaired against the whole network and there are images."""
        settings = self.settings
        return settings.norms == "paired" and settings.correction_images > 0 and self.evidence is not None

    @cached_property
    def moments(self) -> Mapping[str, Moments]:
        """What the layers of the whole network read, measured when first asked for; empty where it is not wanted."""
        if self.evidence is None or not (self.possible and self.settings.reconstruct and self.evidence.has_loss):
            return {}
        half = -(-self.settings.correction_images // 2)
        batches, loss = self.evidence.scored(self.whole, half, READING, demanding=False)
        return_memory()
        return moments_of_inputs(self.whole, counted(batches, "measuring what layers read"), loss, self.masked)

    def __call__(self, smaller: Network, plan: Plan, shorter: Shorter | None = None, limit: int | None = None) -> None:
        """Repairs in place what `plan` left of the network, where there are images.

        As the settings say, that is done against the whole network (`repair_`), or its norms are estimated anew.

        Args:
            limit: as there; None: what the settings say.
        """
        if self.possible:
            self.repair_(smaller, plan, shorter, self.settings.correction_images if limit is None else limit)
        elif self.evidence is not None and self.settings.correction_images:
            device, shown = device_of(smaller), self.evidence.augmented(self.settings.correction_images)
            reestimate_batchnorm_(
                smaller, (images.to(device) for images in shown), share=self.settings.correction_share
            )

    def repair_(self, smaller: Network, plan: Plan, shorter: Shorter | None, limit: int, draw: int = 0) -> None:
        """Weights of layers that lost inputs, then statistics of norms, against the whole network.

        Args:
            shorter: the network without the removed blocks and its graph, where they are at hand.
            limit: images on which norms are corrected.
            draw: which images these are.
        """
        narrower = any(0 < len(layer.kept) < layer.total for layer in plan.layers)
        if narrower and self.moments:
            reconstruct_(smaller, self.whole, plan, self.moments, shorter)
        pairs = counterparts(self.whole, plan, shorter)
        if not pairs:
            self.say_no_norms()
        elif self.evidence is not None and limit:
            device = device_of(self.whole)
            shown = counted(self.evidence.images(limit, draw), "correcting norms on images", limit, size=len)
            images = (batch.to(device) for batch in shown)
            correct_(smaller, self.whole, pairs, images, share=self.settings.correction_share)

    def say_no_norms(self) -> None:
        """Says once that there is nothing to correct."""
        if not self._said:
            self._said = True
            what = "layers that lost inputs are reconstructed" if self.moments else "nothing is repaired"
            LOG.info("The network has no batch norm whose statistics could be corrected: %s.", what)
