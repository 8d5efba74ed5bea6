"""Sparse training on convolution weights: an L1 penalty on prunable filters, for criteria that read weights.

Li et al. 2017, "Pruning Filters for Efficient ConvNets", rank filters by their L1 norm; this penalty separates the
norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.graph import Axis
from secateur.sparsity.channels.distribution import Penalty
from secateur.sparsity.channels.gamma import soft_threshold
from secateur.sparsity.settings import SparsifySettings
from secateur.training.run import TrainingRun


class ConvPenalty(Penalty):
    """Adds `conv_rate` * sum |W| over the filters of prunable channels; the last layers of a detector are excluded.

    Mode, schedule and ramp are those of the gamma penalty. The size of a filter, for schedules that use it, is its mean
    |weight|. Batch norms are not affected; see `GammaPenalty`.

    Args:
        settings: rate and options.
        filters: name of a convolution -> the axis of its weight for its output channels, with the unit of each
            (`ChannelGraph.filters`); convolutions without units are skipped.

    Raises:
        UserError: the schedule is unknown.
    """

    def __init__(self, settings: SparsifySettings, filters: Mapping[str, Axis]) -> None:
        super().__init__(settings, "filters", "The convolution penalty")
        self.axes = [axis for axis in filters.values() if (axis.units >= 0).any()]
        self._weights: list[nn.Parameter] = []
        self._averages: list[Tensor] = []
        self._dims: list[int] = []
        self._prunable: list[Tensor] = []  # bool [filters] each

    def start(self, run: TrainingRun) -> None:
        """Finds the weights by name; frozen weights are skipped.

        Raises:
            UserError: a weight does not exist, or there is no filter to penalise.
        """
        average, frozen = run.ema.network.state_dict(), []
        self._weights, self._averages, self._dims, self._prunable = [], [], [], []
        for axis in self.axes:
            try:
                weight = run.network.get_parameter(axis.tensor)
            except AttributeError:
                raise UserError(
                    f"The convolution penalty needs {axis.tensor}, which this detector does not have."
                ) from None
            if not weight.requires_grad:
                frozen.append(axis.layer)
                continue
            self._weights.append(weight)
            self._averages.append(average[axis.tensor])
            self._dims.append(axis.dim)
            self._prunable.append(torch.from_numpy(axis.units >= 0).to(weight.device))
        if frozen:
            run.log.message(
                f"The convolution penalty: {len(frozen)} frozen layers are skipped ({', '.join(frozen[:3])}, ...)."
            )
        if not self._weights:
            raise UserError("The convolution penalty has no filter to shrink. Unfreeze some layers.")

    @torch.no_grad()
    def before_step(self, run: TrainingRun) -> None:
        """Adds the sub-gradient to the final gradients."""
        if self.settings.mode != "subgradient":
            return
        used = [i for i, weight in enumerate(self._weights) if weight.grad is not None]
        self.leave_out(run, len(self._weights) - len(used), "layers")
        if not used:
            return
        rates = self._rates(run, run.step_weight)
        pull = list(torch._foreach_sign([self._weights[i] for i in used]))
        torch._foreach_mul_(pull, [rates[i] for i in used])
        torch._foreach_add_([gradient for i in used if (gradient := self._weights[i].grad) is not None], pull)

    def after_step(self, run: TrainingRun) -> None:
        """Applies the proximal step: soft thresholding by learning rate times rate."""
        if self.settings.mode != "proximal":
            return
        rates = self._rates(run, run.step_weight * run.learning_rate)
        for weight, thresholds in zip(self._weights, rates, strict=True):
            weight.copy_(soft_threshold(weight, thresholds))

    @torch.no_grad()
    def epoch_end(self, run: TrainingRun) -> None:
        """Logs the distribution of the mean |weight| of filters, for the model and its average."""
        rate = max(float(part.max()) for part in self._rates(run, 1.0))
        sizes = {"model": self._sizes(self._weights).cpu(), "ema": self._sizes(self._averages).cpu()}
        self._distributions.add(run, rate, sizes)

    def _sizes(self, weights: Sequence[Tensor]) -> Tensor:
        """Mean |weight| of the prunable filters, float32 [filters of all layers]."""
        sizes = []
        for weight, dim, prunable in zip(weights, self._dims, self._prunable, strict=True):
            rows = weight.detach().movedim(dim, 0).flatten(1)
            sizes.append((torch.linalg.vector_norm(rows, ord=1, dim=1) / rows.shape[1])[prunable].float())
        return torch.cat(sizes)

    def _rates(self, run: TrainingRun, share: float) -> list[Tensor]:
        """`share` times the current rate of each filter, in a shape that multiplies the weights; 0 for other
        filters."""
        rates, factor = self.factors(run, torch.cat(self._prunable), lambda: self._sizes(self._weights))
        base = share * self.settings.conv_rate * self.rise(run)
        parts = (rates * (factor * base)).split([len(part) for part in self._prunable])
        shaped = []
        for part, weight, dim in zip(parts, self._weights, self._dims, strict=True):
            shape = [1] * weight.ndim
            shape[dim] = -1
            shaped.append(part.view(shape))
        return shaped
