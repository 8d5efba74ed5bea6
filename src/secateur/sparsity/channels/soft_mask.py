"""Soft mask of Pruned-YOLO: every few epochs, weak channels are strongly scaled down.

Zhang et al. 2021, "Pruned-YOLO: Learning Efficient Object Detector Using Model Pruning", ICANN.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.pruning.graph import Ids
from secateur.sparsity.channels.scales import Scales
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun


def acts_in(settings: SparsifySettings, epochs: int) -> range:
    """The epochs (from 0) after which the mask acts, in a training of `epochs` epochs.

    A soft mask does not act after the last epoch, because no epoch follows in which a needed channel could recover.
    """
    return range(settings.mask_start, epochs if settings.mask_factor == 0 else epochs - 1, settings.mask_period)


class SoftMask(Hook):
    """Multiplies gamma and beta of channels with |gamma| <= alpha * mean |gamma| by a factor at the end of an epoch.

    The mask is not permanent: channels that the detection loss needs can grow again. It acts on the detector and on its
    average, and clears the optimizer state of these entries, because momentum would undo it. Running statistics are not
    scaled: scaling them, as in the original, would give different changes in evaluation and training. Tied channels are
    only masked if all channels of the unit are below the threshold, because only whole units can be cut.

    Args:
        settings: the options `mask_...`.
        norms: name of a norm -> unit of each channel, int64 [channels], -1 for channels that are not prunable
            (`ChannelGraph.norms`).
    """

    scales: Scales

    def __init__(self, settings: SparsifySettings, norms: Mapping[str, Ids]) -> None:
        self.settings, self.norms = settings, dict(norms)

    def start(self, run: TrainingRun) -> None:
        """Finds scales and shifts.

        Raises:
            UserError: a norm does not exist, or no channel may be masked.
        """
        self.scales = Scales.find(run, self.norms, "The soft mask")
        if not acts_in(self.settings, run.epochs):
            run.log.message(f"The soft mask has no effect: --mask-start is after the last of {run.epochs} epochs.")

    def may_stop(self, run: TrainingRun) -> bool:
        """False: the schedule covers all epochs."""
        return False

    @torch.no_grad()
    def epoch_end(self, run: TrainingRun) -> None:
        """Applies the mask in the epochs of `acts_in`."""
        if run.epoch not in acts_in(self.settings, run.epochs):
            return
        scales, factor = self.scales, self.settings.mask_factor
        gammas = scales.vector(scales.gammas).abs()
        threshold = self.settings.mask_alpha * float(gammas[scales.prunable].mean())
        weak_units = (scales.of_members(gammas).amax(dim=1) <= threshold) & scales.whole
        weak = scales.to_channels(weak_units)
        for tensors in (scales.gammas, scales.betas, scales.average_gammas, scales.average_betas):
            torch._foreach_mul_(list(tensors), scales.split(torch.where(weak, factor, 1.0)))
        self._forget(run, scales.split(weak))
        channels, total = int(weak.sum()), int(scales.prunable.sum())
        run.log.log("soft_mask/share", channels / total)
        run.log.log("soft_mask/threshold", threshold)
        run.log.log("soft_mask/factor", factor)
        run.log.message(
            f"Soft mask: {channels} of {total} channels (all |gamma| of their unit at most {threshold:.3g}) "
            f"multiplied by {factor:g}."
        )

    def _forget(self, run: TrainingRun, weak: list[Tensor]) -> None:
        """Clears the optimizer state of masked scales and shifts: momentum, moments of Adam."""
        for parameters in (self.scales.gammas, self.scales.betas):
            for parameter, mask in zip(parameters, weak, strict=True):
                for value in run.optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.masked_fill_(mask, 0.0)
