"""Inputs of a user's data loader as a split, so that plain modules are healed like networks of other families."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.families.reading import Reading
from secateur.pruning.evidence import LoaderEvidence

MOST = 4096
"""Maximum number of inputs kept in memory."""


@dataclass(frozen=True)
class EvidenceImages:
    """The inputs of `secateur.Evidence` as a data set without labels."""

    evidence: LoaderEvidence
    file: Path = Path("the evidence")
    splits: Mapping[str, Any] = field(default_factory=lambda: {"train": ()})
    names: Mapping[int, str] = field(default_factory=dict)
    nc: int = 0
    labelled: bool = False
    one_class: bool = False


@dataclass(frozen=True)
class Inputs:
    """A batch without labels, as `training.batches.BatchLike`."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class EvidenceSplit:
    """Inputs [N, ...] of the network, see `families.reading.Split`."""

    inputs: Tensor

    @staticmethod
    def of(evidence: LoaderEvidence) -> EvidenceSplit:
        """The first `MOST` inputs of the loader."""
        return EvidenceSplit(torch.cat([batch.cpu() for batch in evidence.images(MOST, 0)])[:MOST])

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, places: Sequence[int]) -> EvidenceSplit:
        """The inputs at these indices."""
        return EvidenceSplit(self.inputs[torch.as_tensor(places)])

    def signature(self) -> str:
        """A digest of the values."""
        return hashlib.sha256(self.inputs.contiguous().numpy().tobytes()).hexdigest()[:16]

    def shuffled(self, reading: Reading) -> ShuffledInputs:
        """Inputs without augmentation: the loader of the user does its own."""
        return ShuffledInputs(self, reading)

    def ordered(self, reading: Reading) -> Iterator[Inputs]:
        """Every input once."""
        for start in range(0, len(self), reading.batch_size):
            yield self.batch(range(start, min(start + reading.batch_size, len(self))))

    def batch(self, places: Sequence[int]) -> Inputs:
        """The inputs at these indices as one batch."""
        return Inputs(self.inputs[torch.as_tensor(places)], torch.zeros(0))


@dataclass(frozen=True)
class ShuffledInputs:
    """Whole batches, epoch by epoch, as `training.batches.Batches`."""

    split: EvidenceSplit
    reading: Reading

    def __len__(self) -> int:
        return max(len(self.split) // self.reading.batch_size, 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Inputs]:
        """Batches of an epoch from index `start`, in an order that depends only on the seed and the epoch."""
        order = np.random.default_rng((self.reading.seed, epoch)).permutation(len(self.split))
        size = self.reading.batch_size
        for number in range(start, len(self)):
            yield self.split.batch(order[number * size : (number + 1) * size].tolist())
