"""The soft mask of Pruned-YOLO: every few epochs, channels that are already weak are made much weaker.

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
    """The epochs (from 0) at whose end the mask acts in a training of `epochs`.

    A soft one rests after the last epoch: nothing follows in which a channel that is needed could grow again.
    """
    return range(settings.mask_start, epochs if settings.mask_factor == 0 else epochs - 1, settings.mask_period)


class SoftMask(Hook):
    """Multiplies gamma and beta of channels with |gamma| <= alpha * mean |gamma| by a factor, at the end of an epoch.

    It is a push, not a lasting mask: what the detection loss needs grows again. It acts on the detector and on its
    average alike, and clears the optimizer's memory of these entries, or momentum would undo it. Running statistics
    stay: scaling them too, as the original did, makes the change another one in evaluation than in training. Channels
    that are tied are touched only when the whole unit is under the threshold, for only then could they be cut.

    Args:
        settings: the `mask_...` options.
        norms: name of a norm module -> unit of each channel, -1 for those that stay (`ChannelGraph.norms`).
    """

    scales: Scales

    def __init__(self, settings: SparsifySettings, norms: Mapping[str, Ids]) -> None:
        self.settings, self.norms = settings, dict(norms)

    def start(self, run: TrainingRun) -> None:
        """Finds scales and shifts.

        Raises:
            UserError: a name that is no norm of the detector, or no channel that may be masked.
        """
        self.scales = Scales.find(run, self.norms, "The soft mask")
        if not acts_in(self.settings, run.epochs):
            run.log.message(f"The soft mask never acts: --mask-start leaves none of {run.epochs} epochs.")

    def may_stop(self, run: TrainingRun) -> bool:
        """The course of the sparsity runs over all epochs."""
        return False

    @torch.no_grad()
    def epoch_end(self, run: TrainingRun) -> None:
        """Acts, in the epochs that `acts_in` names."""
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
            f"Soft mask: {channels} of {total} channels (|gamma| at most {threshold:.3g} in their whole unit) "
            f"times {factor:g}."
        )

    def _forget(self, run: TrainingRun, weak: list[Tensor]) -> None:
        """Zeroes what the optimizer remembers of masked scales and shifts: momentum, Adam's moments."""
        for parameters in (self.scales.gammas, self.scales.betas):
            for parameter, mask in zip(parameters, weak, strict=True):
                for value in run.optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.masked_fill_(mask, 0.0)
