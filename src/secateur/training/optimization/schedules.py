"""Learning rate, momentum and accumulation as functions of the position in the training; there is no state to save.

Steps are optimizer steps. The warm-up counts batches ("iterations"), as in YOLOv5, because it ramps the accumulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from secateur.training.hyp import Hyp
from secateur.training.settings import NOMINAL_BATCH, TrainSettings


@dataclass(frozen=True)
class Fall:
    """A decision during training: from epoch `start` to `end`, the learning rate falls along half a cosine to its
    final value, replacing earlier decisions."""

    start: int
    end: int


@dataclass(frozen=True)
class Schedule:
    """All inputs of the schedules. `batch_size` is the total over all processes."""

    hyp: Hyp
    epochs: int
    batches: int  # per epoch
    batch_size: int
    cosine: bool = False
    warmup_minimum: int = 100
    nominal_batch: int = NOMINAL_BATCH
    falls: tuple[Fall, ...] | None = None  # decisions of a training with an open end; None: a fixed number of epochs

    @classmethod
    def of(cls, settings: TrainSettings, batches: int) -> Schedule:
        """The schedules of a training with this number of batches per epoch."""
        return cls(
            settings.hyp,
            settings.epochs,
            batches,
            settings.batch_size,
            settings.cos_lr,
            settings.warmup_minimum,
            settings.nominal_batch,
        )

    @property
    def warmup(self) -> int:
        """Length of the warm-up in batches: as in YOLOv5, but at most half of the training."""
        if self.hyp.warmup_epochs == 0:
            return 0
        wanted = max(round(self.hyp.warmup_epochs * self.batches), self.warmup_minimum)
        return min(wanted, self.epochs * self.batches // 2)

    @property
    def full_accumulate(self) -> int:
        """Batches per optimizer step after the warm-up."""
        return max(round(self.nominal_batch / self.batch_size), 1)

    @property
    def weight_decay(self) -> float:
        """Weight decay for the actual number of images per step."""
        return self.hyp.weight_decay * self.batch_size * self.full_accumulate / NOMINAL_BATCH

    def decay(self, epoch: int) -> float:
        """Factor of lr0 in an epoch: a line or half a cosine from 1 to lrf; for an open end, 1 until a fall is
        decided."""
        if self.falls is not None:
            return self._fallen(epoch, self.falls)
        if self.cosine:
            return (1 - math.cos(epoch * math.pi / self.epochs)) / 2 * (self.hyp.lrf - 1) + 1
        return (1 - epoch / self.epochs) * (1 - self.hyp.lrf) + self.hyp.lrf

    def learning_rates(self, iteration: int, epoch: int) -> tuple[float, float, float]:
        """Learning rates of biases, decayed weights and norm weights at a batch, counted from the start of the
        training."""
        rate = self.hyp.lr0 * self.decay(epoch)
        weights = self._ramp(iteration, 0.0, rate)
        return self._ramp(iteration, self.hyp.warmup_bias_lr, rate), weights, weights

    def momentum(self, iteration: int) -> float:
        """Momentum of SGD or beta1 of Adam."""
        return self._ramp(iteration, self.hyp.warmup_momentum, self.hyp.momentum)

    def accumulate(self, iteration: int) -> int:
        """Batches per optimizer step, ramped up from 1 during the warm-up."""
        return max(1, round(self._ramp(iteration, 1.0, self.nominal_batch / self.batch_size)))

    def steps_until(self, epoch: int) -> int:
        """Optimizer steps in the first `epoch` epochs (without steps skipped by an fp16 scaler)."""
        if self.warmup == 0:
            return epoch * -(-self.batches // self.full_accumulate)
        steps = 0
        for number in range(epoch):
            if number * self.batches >= self.warmup:
                return steps + (epoch - number) * -(-self.batches // self.full_accumulate)
            pending = 0
            for batch in range(self.batches):
                pending += 1
                if pending >= self.accumulate(number * self.batches + batch) or batch + 1 == self.batches:
                    steps, pending = steps + 1, 0
        return steps

    def _fallen(self, epoch: int, falls: tuple[Fall, ...]) -> float:
        factor = 1.0
        for number, fall in enumerate(falls):
            until = falls[number + 1].start if number + 1 < len(falls) else fall.end
            share = (min(max(epoch, fall.start), until, fall.end) - fall.start) / max(fall.end - fall.start, 1)
            factor = self.hyp.lrf + (factor - self.hyp.lrf) * (1 + math.cos(share * math.pi)) / 2
        return factor

    def _ramp(self, iteration: int, start: float, end: float) -> float:
        if iteration >= self.warmup:
            return end
        return start + (end - start) * iteration / self.warmup
