"""Sparse training for channel pruning: an L1 penalty that drives batch-norm scales (gamma) of weak channels to zero.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.files import write_text
from secateur.pruning.graph import Ids
from secateur.sparsity.channels.distribution import NEAR_ZERO, Penalty, as_csv, distribution
from secateur.sparsity.channels.scales import Scales
from secateur.sparsity.settings import SparsifySettings
from secateur.training.run import TrainingRun


class GammaPenalty(Penalty):
    """Adds s * sum |gamma| over the prunable channels.

    `subgradient` adds s * sign(gamma) to the final gradient. `proximal` shrinks gamma by lr * s after the step, which
    gives exact zeros and does not depend on the normalisation of Adam. With SGD, momentum m multiplies the effect of
    the sub-gradient by 1 / (1 - m); the proximal step has no momentum, so its s must be larger by about that factor.
    The penalty on shifts, `beta` times s, does not follow the schedule. It is not useful if constants of removed
    channels are absorbed after the cut.

    Args:
        settings: rate and options; the rate must be set.
        norms: name of a norm -> unit of each channel, int64 [channels], -1 for channels that are not prunable
            (`ChannelGraph.norms`).

    Raises:
        UserError: there is no rate, or the schedule is unknown.
    """

    scales: Scales

    def __init__(self, settings: SparsifySettings, norms: Mapping[str, Ids]) -> None:
        if settings.rate == 0:
            raise UserError("Option rate is 0, so the gamma penalty has no effect. Set a rate above 0.")
        super().__init__(settings, "gamma", "The gamma penalty")
        self.norms = dict(norms)

    def start(self, run: TrainingRun) -> None:
        """Finds scales and shifts.

        Raises:
            UserError: a norm does not exist, or there is no channel to penalise.
        """
        self.scales = Scales.find(run, self.norms, self.title)

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
        """Applies the proximal step: soft thresholding by learning rate times s."""
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
        """Logs the distribution of the penalised scales, for the model and its average."""
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

    def _rates(self, run: TrainingRun) -> Tensor:
        """Current s of each channel, [channels]; zero for channels that are not prunable."""
        scales = self.scales
        rates, factor = self.factors(run, scales.prunable, lambda: scales.sizes(scales.gammas))
        return rates * (factor * self.settings.rate * self.rise(run))

    def _beta_rate(self, run: TrainingRun) -> float:
        return self.settings.beta * self.settings.rate * self.rise(run)

    def _add(self, run: TrainingRun, parameters: Sequence[Tensor], pull: Tensor) -> None:
        """Adds `pull` [channels] to the gradients; norms that do not contribute to the loss have no gradient and are
        skipped."""
        pairs = [
            (p.grad, part) for p, part in zip(parameters, self.scales.split(pull), strict=True) if p.grad is not None
        ]
        self.leave_out(run, len(parameters) - len(pairs), "norms")
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
    """Moves values, of any shape, towards zero by thresholds (broadcast), to exactly zero if they are smaller."""
    return values.sign() * (values.abs() - thresholds).clamp_(min=0)
