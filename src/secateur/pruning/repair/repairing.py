"""Repairs cuts of one network: weights first, then statistics of norms. Shared measurements are made only once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Generic, TypeVar

from torch import nn

from secateur.machine import return_memory
from secateur.pruning.evidence import Evidence, device_of
from secateur.pruning.plan import Plan
from secateur.pruning.repair.correction import Shorter, WholeStatistics, correct_, counterparts
from secateur.pruning.repair.norms import reestimate_batchnorm_
from secateur.pruning.repair.reconstruction import Moments, moments_of_inputs, reconstruct_
from secateur.pruning.settings import RepairSettings
from secateur.terminal import counted

LOG = logging.getLogger("secateur")
Network = TypeVar("Network", bound=nn.Module)
READING = 2_000_000
"""Draw number of the images for the moments; different from those for scoring and correction."""


class Repair(Generic[Network]):
    """Repairs cuts of one network against the whole network.

    Args:
        whole: the network before the cut, on the device to use; not changed.
        evidence: images and loss; None if there are no images.
        masked: names of tensors with single weights that must stay zero; their layers are not reconstructed.
        same_images: whether equal draws of the evidence are equal images, which a shuffled loader does not guarantee.
            The whole network then reads them once for several repairs.
    """

    def __init__(
        self,
        whole: Network,
        evidence: Evidence[Network] | None,
        settings: RepairSettings,
        masked: Iterable[str] = (),
        *,
        same_images: bool = False,
    ) -> None:
        self.whole, self.evidence, self.settings = whole, evidence, settings
        self.masked = [name.removesuffix(".weight") for name in masked]
        self._said, self._same_images = False, same_images
        self._statistics: tuple[tuple[int, int], WholeStatistics] | None = None

    @property
    def possible(self) -> bool:
        """Whether cuts are to be repaired against the whole network and there are images."""
        settings = self.settings
        return settings.norms == "paired" and settings.correction_images > 0 and self.evidence is not None

    @cached_property
    def moments(self) -> Mapping[str, Moments]:
        """Moments of the inputs of the layers of the whole network, measured on first use; empty if reconstruction
        is disabled."""
        if self.evidence is None or not (self.possible and self.settings.reconstruct and self.evidence.has_loss):
            return {}
        half = -(-self.settings.correction_images // 2)
        batches, loss = self.evidence.scored(self.whole, half, READING, demanding=False)
        return_memory()
        return moments_of_inputs(self.whole, counted(batches, "measuring layer inputs"), loss, self.masked)

    def __call__(self, smaller: Network, plan: Plan, shorter: Shorter | None = None, limit: int | None = None) -> None:
        """Repairs in place the network that `plan` leaves, if there are images.

        Depending on the settings, it is repaired against the whole network (`repair_`), or its norms are re-estimated.

        Args:
            limit: maximum number of images, see `repair_`; None: from the settings.
        """
        if self.possible:
            self.repair_(smaller, plan, shorter, self.settings.correction_images if limit is None else limit)
        elif self.evidence is not None and self.settings.correction_images:
            device, shown = device_of(smaller), self.evidence.augmented(self.settings.correction_images)
            reestimate_batchnorm_(
                smaller, (images.to(device) for images in shown), share=self.settings.correction_share
            )

    def repair_(self, smaller: Network, plan: Plan, shorter: Shorter | None, limit: int, draw: int = 0) -> None:
        """Reconstructs layers that lost inputs, then corrects the statistics of norms, against the whole network.

        Args:
            shorter: the network without the removed blocks and its graph, if available.
            limit: number of images for the correction of norms.
            draw: number of the draw of these images.
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
            statistics = self.statistics(limit, draw)
            correct_(smaller, self.whole, pairs, images, share=self.settings.correction_share, statistics=statistics)

    def statistics(self, limit: int, draw: int) -> WholeStatistics:
        """Statistics of the whole network on the images of this draw, shared by repairs on the same images.

        Args:
            limit, draw: see `repair_`.
        """
        if not self._same_images or self._statistics is None or self._statistics[0] != (limit, draw):
            self._statistics = (limit, draw), WholeStatistics(self.whole)
        return self._statistics[1]

    def say_no_norms(self) -> None:
        """Logs once that there are no statistics to correct."""
        if not self._said:
            self._said = True
            what = "only layers that lost inputs are reconstructed" if self.moments else "the cut is not repaired"
            LOG.info("The network has no batch norms to correct: %s.", what)
