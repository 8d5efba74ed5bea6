"""Batch-norm scales and shifts of the prunable channels as one vector, and which channels are tied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.pruning.graph import Ids
from secateur.training.run import TrainingRun


@dataclass
class Scales:
    """Norms found in a training. A `vector` holds the channels of all norms, concatenated: [channels].

    Attributes:
        names, gammas, betas: names, scales and shifts of the norms of the trained detector.
        average_gammas, average_betas: the same for its moving average.
        prunable: bool [channels]; other channels are in the vector only because their norm is.
        members: int64 [units, maximum members of a unit], indices into the vector of the channels of each unit; unused
            entries hold `channels`.
        whole: bool [units]; False if a member belongs to a frozen norm.
    """

    names: list[str]
    gammas: list[Tensor]
    betas: list[Tensor]
    average_gammas: list[Tensor]
    average_betas: list[Tensor]
    prunable: Tensor
    members: Tensor
    whole: Tensor

    @classmethod
    def find(cls, run: TrainingRun, norms: Mapping[str, Ids], method: str) -> Scales:
        """Finds the norms by name (SyncBatchNorm and DDP preserve names and parameters). Frozen norms are skipped.

        Args:
            norms: name of a norm -> unit of each channel, int64 [channels], -1 for channels that are not prunable; as
                `ChannelGraph.norms`.
            method: name of the caller, for messages.

        Raises:
            UserError: a norm does not exist, or no channel may be shrunk.
        """
        average = run.ema.network.state_dict()
        found, frozen, units, frozen_units = [], [], [], []
        for name, ids in norms.items():
            try:
                gamma = run.network.get_parameter(f"{name}.weight")
                beta = run.network.get_parameter(f"{name}.bias")
            except AttributeError:
                raise UserError(f"{method} needs {name}, which is not a norm with scales in this detector.") from None
            if len(ids) != len(gamma):
                raise UserError(f"{method} has {len(ids)} channels for {name}, but the norm has {len(gamma)}.")
            if not (ids >= 0).any():
                continue
            if gamma.requires_grad:
                found.append((name, gamma, beta))
                units.append(np.asarray(ids))
            else:
                frozen.append(name)
                frozen_units.append(np.asarray(ids))
        if frozen:
            run.log.message(f"{method}: {len(frozen)} frozen norms are skipped ({', '.join(frozen[:3])}, ...).")
        if not found:
            raise UserError(f"{method} has no channel to shrink. Unfreeze some layers, or exclude fewer.")
        device = found[0][1].device
        ids = np.concatenate(units)
        numbers, members = _members(ids)
        whole = ~np.isin(numbers, np.concatenate(frozen_units)) if frozen_units else np.ones(len(numbers), bool)
        return cls(
            names=[name for name, _, _ in found],
            gammas=[gamma for _, gamma, _ in found],
            betas=[beta for _, _, beta in found],
            average_gammas=[average[f"{name}.weight"] for name, _, _ in found],
            average_betas=[average[f"{name}.bias"] for name, _, _ in found],
            prunable=torch.from_numpy(ids >= 0).to(device),
            members=torch.from_numpy(members).to(device),
            whole=torch.from_numpy(whole).to(device),
        )

    def vector(self, tensors: Sequence[Tensor]) -> Tensor:
        """Concatenates one tensor per norm, [channels of the norm], to a vector, float [channels], without
        gradients."""
        return torch.cat([tensor.detach() for tensor in tensors])

    def split(self, vector: Tensor) -> list[Tensor]:
        """Splits a vector [channels] into one tensor per norm."""
        return list(vector.split([len(gamma) for gamma in self.gammas]))

    def sizes(self, tensors: Sequence[Tensor]) -> Tensor:
        """|value| of the prunable channels, float32 [prunable channels]."""
        return self.vector(tensors)[self.prunable].abs().float()

    def of_members(self, vector: Tensor) -> Tensor:
        """A vector [channels] as [units, maximum members], with zeros in unused entries."""
        return torch.cat([vector, vector.new_zeros(1)])[self.members]

    def to_channels(self, of_units: Tensor) -> Tensor:
        """A value per unit, [units], as a vector [channels]; zero for channels without a unit."""
        vector = of_units.new_zeros(len(self.prunable) + 1)
        vector[self.members] = of_units[:, None].expand(self.members.shape)
        return vector[:-1]


def _members(units: Ids) -> tuple[Ids, Ids]:
    """The existing units, [units], and the indices of their members, [units, maximum members], padded with
    len(units)."""
    order = np.argsort(units, kind="stable")
    order = order[units[order] >= 0]
    numbers, first, count = np.unique(units[order], return_index=True, return_counts=True)
    members = np.full((len(numbers), count.max()), len(units), dtype=np.int64)
    row = np.repeat(np.arange(len(numbers)), count)
    members[row, np.arange(len(order)) - np.repeat(first, count)] = order
    return numbers, members
