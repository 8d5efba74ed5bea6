"""Sparse training for channel pruning: an L1 penalty that drives BatchNorm scales (gamma) of weak channels to zero.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.files import write_text
from secateur.pruning.graph import Ids
from secateur.sparsity.channels.distribution import NEAR_ZERO, Distributions, as_csv, distribution
from secateur.sparsity.channels.scales import Scales
from secateur.sparsity.rates import RATES, factor_at, rise
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun


class GammaPenalty(Hook):
    """Applies s * sum |gamma| to the channels that can be pruned, and to no others.

    `subgradient` adds s * sign(gamma) to the final gradient; `proximal` shrinks gamma by lr * s after the step, which
    gives exact zeros and does not depend on Adam's normalisation. SGD's momentum m multiplies the sub-gradient's pull
    by 1 / (1 - m); the proximal step has none, so its s is about that much larger. The shifts'
    penalty, `beta` times s, does not follow the schedule; it is of no use when cutting absorbs offsets into consumers.

    Args:
        settings: how strong, and how; the rate must be given.
        norms: name of a norm module -> unit of each channel, -1 for those that stay (`ChannelGraph.norms`).

    Raises:
        UserError: no rate, or an unknown schedule.
    """

    scales: Scales

    def __init__(self, settings: SparsifySettings, norms: Mapping[str, Ids]) -> None:
        if settings.rate == 0:
            raise UserError("Option rate is 0, so the gamma penalty would do nothing; give it a rate above 0.")
        RATES[settings.schedule]  # an unknown one is refused now, not in the first step
        self.settings, self.norms = settings, dict(norms)
        self._distributions = Distributions("gamma")
        self._told = False

    def start(self, run: TrainingRun) -> None:
        """Finds scales and shifts.

        Raises:
            UserError: a name that is no norm of the detector, or no channel to penalise.
        """
        self.scales = Scales.find(run, self.norms, "The gamma penalty")

    @torch.no_grad()
    def before_step(self, run: TrainingRun) -> None:
        """Adds the sub-gradient to the final gradients."""
        if self.settings.mode != "subgradient":
            return
        scales = self.scales
        gammas = scales.vector(scales.gammas)
        self._add(run, scales.gammas, gammas.sign() * self._rates(run) * run.step_weight)
        if self.settings.beta > 0:
            shifts = scales.vector(scales.betas)
            self._add(run, scales.betas, shifts.sign() * scales.prunable * (self._beta_rate(run) * run.step_weight))

    def after_step(self, run: TrainingRun) -> None:
        """The proximal step: soft thresholding by learning rate times s."""
        if self.settings.mode != "proximal":
            return
        scales, share = self.scales, run.learning_rate * run.step_weight
        gammas = soft_threshold(scales.vector(scales.gammas), self._rates(run) * share)
        torch._foreach_copy_(scales.gammas, scales.split(gammas))
        if self.settings.beta > 0:
            shifts = soft_threshold(scales.vector(scales.betas), scales.prunable * (self._beta_rate(run) * share))
            torch._foreach_copy_(scales.betas, scales.split(shifts))

    @torch.no_grad()
    def epoch_end(self, run: TrainingRun) -> None:
        """Logs the distribution of the penalised scales, of the model and of its average."""
        scales = self.scales
        sizes = {"model": scales.sizes(scales.gammas).cpu(), "ema": scales.sizes(scales.average_gammas).cpu()}
        row = self._distributions.add(run, float(self._rates(run).max()), sizes)
        if self.settings.beta > 0:
            for name, betas in (("model", scales.betas), ("ema", scales.average_betas)):
                run.log.histogram(f"beta/{name}", scales.vector(betas)[scales.prunable])
        if run.is_main:
            write_text(run.folder / "gamma_layers.csv", as_csv(self._layers()))
        if run.epoch + 1 == run.epochs:
            shares = " and ".join(f"{row[f'ema/below_{limit:g}']:.1%} under {limit:g}" for limit in NEAR_ZERO)
            run.log.message(f"Of {int(scales.prunable.sum())} penalised scales of the average, {shares} at the end.")

    def may_stop(self, run: TrainingRun) -> bool:
        """The course of the sparsity runs over all epochs."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """The rows of gamma.csv so far; rates are functions of where the training is."""
        return self._distributions.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the rows."""
        self._distributions.load_state_dict(state)

    def _rates(self, run: TrainingRun) -> Tensor:
        """s of each channel now, [channels]; zero where nothing can be pruned."""
        scales = self.scales
        factor = factor_at(self.settings.schedule, run.epoch / run.epochs, lambda: scales.sizes(scales.gammas))
        rates = scales.prunable.float()
        if isinstance(factor, Tensor):
            rates[scales.prunable] = factor
            factor = 1.0
        return rates * (factor * self.settings.rate * self._rise(run))

    def _beta_rate(self, run: TrainingRun) -> float:
        return self.settings.beta * self.settings.rate * self._rise(run)

    def _rise(self, run: TrainingRun) -> float:
        return rise(self.settings.ramp, run.iteration, run.schedule.batches)

    def _add(self, run: TrainingRun, parameters: Sequence[Tensor], pull: Tensor) -> None:
        """Adds a pull [channels] to the gradients; a norm that takes no part in the loss has none and stays."""
        pairs = [
            (p.grad, part) for p, part in zip(parameters, self.scales.split(pull), strict=True) if p.grad is not None
        ]
        if len(pairs) < len(parameters) and not self._told:
            self._told = True
            missing = len(parameters) - len(pairs)
            run.log.message(f"The gamma penalty: {missing} norms take no part in the loss and are left out.")
        if pairs:
            torch._foreach_add_([gradient for gradient, _ in pairs], [part for _, part in pairs])

    def _layers(self) -> list[dict[str, float | str]]:
        """The distribution in each norm of the average."""
        scales = self.scales
        rows: list[dict[str, float | str]] = []
        masks = scales.split(scales.prunable)
        for name, gamma, mask in zip(scales.names, scales.average_gammas, masks, strict=True):
            values = gamma[mask].abs().float().cpu()
            rows.append({"layer": name, "channels": len(values), **distribution(values)})
        return rows


def soft_threshold(values: Tensor, thresholds: Tensor) -> Tensor:
    """Values moved towards zero by thresholds (broadcast), and to exactly zero when they are nearer."""
    return values.sign() * (values.abs() - thresholds).clamp_(min=0)
