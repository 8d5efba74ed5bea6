"""Sparse training for channel pruning: an L1 penalty that drives BatchNorm scales (gamma) of weak channels to zero.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.files import write_text
from secateur.training.hooks import Hook, TrainingRun

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEAR_ZERO = (1e-2, 1e-3)


@dataclass(frozen=True)
class GammaOptions:
    """Options of the penalty.

    Attributes:
        rate: s, the strength for 64 images a step; a step on other numbers of images takes its proportion, as the loss
            does.
        mode: `subgradient` adds s * sign(gamma) to the final gradient; `proximal` shrinks gamma by lr * s after the
            step, which gives exact zeros and does not depend on Adam's normalisation. SGD's momentum m multiplies the
            sub-gradient's pull by 1 / (1 - m); the proximal step has none, so its s is about that much larger.
        schedule: `constant`; `linear` falls to 0.1 s; `cosine` falls to 0.2 s.
        beta_factor: the shifts' penalty as a multiple of s, constant over the epochs; 0 leaves them alone, which is
            right when cutting absorbs offsets into consumers.

    Raises:
        UserError: an option out of its range.
    """

    rate: float = 1e-3
    mode: Literal["subgradient", "proximal"] = "subgradient"
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    beta_factor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rate", "beta_factor"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"Option {name} of the gamma penalty is {getattr(self, name)}; it must be at least 0.")
        if self.mode not in ("subgradient", "proximal"):
            raise UserError(f"Option mode of the gamma penalty is {self.mode!r}; choose subgradient or proximal.")
        if self.schedule not in ("constant", "linear", "cosine"):
            raise UserError(
                f"Option schedule of the gamma penalty is {self.schedule!r}; choose constant, linear or cosine."
            )


def rate_at(options: GammaOptions, epoch: int, epochs: int) -> float:
    """The rate s of an epoch (from 0) of `epochs`."""
    if options.schedule == "linear":
        return options.rate * (1 - 0.9 * epoch / epochs)
    if options.schedule == "cosine":
        return options.rate * (0.8 * (1 + math.cos(math.pi * epoch / epochs)) / 2 + 0.2)
    return options.rate


class GammaPenalty(Hook):
    """Applies the penalty to the channels that can be pruned, and to no others.

    Args:
        options: how strong, and how.
        prunable: name of a norm module -> bool mask [channels] of those to penalise, or None for all of them.
    """

    def __init__(self, options: GammaOptions, prunable: Mapping[str, Tensor | None]) -> None:
        self.options, self.prunable = options, dict(prunable)
        self._gammas: list[nn.Parameter] = []
        self._betas: list[nn.Parameter] = []
        self._masks: list[Tensor] = []
        self._averaged: list[Tensor] = []
        self._rows: list[dict[str, float]] = []
        self._warned: set[int] = set()

    def start(self, run: TrainingRun) -> None:
        """Finds the scales and shifts by name; SyncBatchNorm and DDP keep names and parameters.

        Raises:
            UserError: a name that is no norm of the detector, or no channel to penalise.
        """
        average = run.ema.detector.state_dict()
        skipped = []
        for name, mask in self.prunable.items():
            try:
                gamma = run.detector.get_parameter(f"{name}.weight")
                beta = run.detector.get_parameter(f"{name}.bias")
            except AttributeError:
                raise UserError(
                    f"The gamma penalty names {name}, which is no norm with scales in this detector."
                ) from None
            if mask is not None and mask.shape != gamma.shape:
                raise UserError(f"The gamma penalty's mask of {name} has {mask.numel()} channels, not {gamma.numel()}.")
            if not gamma.requires_grad:
                skipped.append(name)
                continue
            chosen = torch.ones_like(gamma) if mask is None else mask.to(gamma.device, gamma.dtype)
            if not chosen.any():
                continue
            self._gammas.append(gamma)
            self._betas.append(beta)
            self._masks.append(chosen)
            self._averaged.append(average[f"{name}.weight"])
        if skipped:
            run.log.message(f"Gamma penalty: {len(skipped)} frozen norms are left out ({', '.join(skipped[:3])}, ...).")
        if not self._gammas:
            raise UserError(
                "The gamma penalty finds no channel that it may shrink; unfreeze or un-exclude some layers."
            )

    def before_step(self, run: TrainingRun) -> None:
        """Adds the sub-gradient to the final gradients."""
        if self.options.mode != "subgradient":
            return
        rate = rate_at(self.options, run.epoch, run.epochs) * run.step_weight
        self._add(run, self._gammas, rate)
        if self.options.beta_factor > 0:
            self._add(run, self._betas, self.options.beta_factor * self.options.rate * run.step_weight)

    def after_step(self, run: TrainingRun) -> None:
        """The proximal step: soft thresholding by learning rate times s."""
        if self.options.mode != "proximal":
            return
        rate = rate_at(self.options, run.epoch, run.epochs) * run.step_weight
        _shrink_(self._gammas, self._masks, run.learning_rate * rate)
        if self.options.beta_factor > 0:
            rate = self.options.beta_factor * self.options.rate * run.step_weight
            _shrink_(self._betas, self._masks, run.learning_rate * rate)

    def epoch_end(self, run: TrainingRun) -> None:
        """Logs the distribution of the penalised scales, of the model and of its average."""
        rate = rate_at(self.options, run.epoch, run.epochs)
        row: dict[str, float] = {"epoch": run.epoch, "rate": rate}
        for name, tensors in (("model", self._gammas), ("ema", self._averaged)):
            values = self._penalised(tensors)
            row |= {f"{name}/{key}": value for key, value in distribution(values).items()}
            run.log.histogram(f"gamma/{name}", values)
        for key, value in row.items():
            if key != "epoch":
                run.log.log(f"gamma/{key}", value)
        self._rows.append(row)
        if run.is_main:
            write_text(run.folder / "gamma.csv", _as_csv(self._rows))

    def state_dict(self) -> dict[str, Any]:
        """The rows of gamma.csv so far; rates are functions of the epoch."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the rows."""
        self._rows = [dict(row) for row in state["rows"]]

    def _add(self, run: TrainingRun, parameters: list[nn.Parameter], rate: float) -> None:
        chosen, gradients = [], []
        for i, parameter in enumerate(parameters):
            if parameter.grad is not None:
                chosen.append(i)
                gradients.append(parameter.grad)
        missing = len(parameters) - len(chosen)
        if missing and id(parameters) not in self._warned:
            self._warned.add(id(parameters))
            run.log.message(f"Gamma penalty: {missing} norms take no part in the loss and are left out.")
        with torch.no_grad():
            signs = list(torch._foreach_sign([parameters[i] for i in chosen]))
            torch._foreach_mul_(signs, [self._masks[i] for i in chosen])
            torch._foreach_add_(gradients, signs, alpha=rate)

    def _penalised(self, tensors: list[Any]) -> Tensor:
        """|gamma| of all penalised channels, one vector."""
        picked = [t.detach()[mask > 0] for t, mask in zip(tensors, self._masks, strict=True)]
        return torch.cat(picked).abs().float().cpu()


def distribution(values: Tensor) -> dict[str, float]:
    """Quantiles of |gamma| values [n] and the shares that are nearly zero."""
    points = torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype)).tolist()
    result = {f"q{round(q * 100):02d}": point for q, point in zip(QUANTILES, points, strict=True)}
    return result | {f"below_{limit:g}": float((values < limit).float().mean()) for limit in NEAR_ZERO}


def _shrink_(parameters: list[nn.Parameter], masks: list[Tensor], threshold: float) -> None:
    for parameter, mask in zip(parameters, masks, strict=True):
        parameter.data.copy_(parameter.sign() * (parameter.abs() - threshold * mask).clamp_(min=0))


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: int(value) if key == "epoch" else f"{value:.6g}" for key, value in row.items()})
    return text.getvalue()
