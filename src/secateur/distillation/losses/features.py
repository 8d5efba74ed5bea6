"""The features that feed the head: each kept channel against the same channel of the teacher, both standardised."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.distillation.losses import DISTILLATIONS, Imitation, View
from secateur.training.distributed import total_over_processes, world_size

EPS = 1e-5


@DISTILLATIONS.register("features")
class StandardisedFeatures(Imitation):
    """Mean squared difference of features standardised channel by channel over batch and space.

    For one channel it is 2 - 2 * correlation: scale and shift, which the head can undo, cost nothing, and loud channels
    do not outvote quiet ones (the idea of normalising features before comparing them: Cao et al., "PKD", NeurIPS 2022).
    The channels are exactly those that the cut kept, so there is no projector to train. Levels count alike.
    """

    features = True

    def __call__(self, view: View) -> dict[str, Tensor]:
        """Part d_feat, in 0..4."""
        value = view.share.new_zeros(())
        for here, there in zip(view.student_features, view.teacher_features, strict=True):
            value = value + (standardised(here) - standardised(there)).square().mean()
        return {"d_feat": value * view.share / len(view.student_features)}


def standardised(features: Tensor) -> Tensor:
    """Features [B, c, ny, nx] with mean 0 and variance 1 in every channel over the batch of all processes."""
    if world_size() == 1:
        variance, mean = torch.var_mean(features, (0, 2, 3), correction=0, keepdim=True)
        return (features - mean) * (variance + EPS).rsqrt()
    count = total_over_processes(features.new_tensor(float(features.numel() // features.shape[1])))
    centred = features - total_over_processes(features.sum((0, 2, 3), keepdim=True)) / count
    variance = total_over_processes(centred.square().sum((0, 2, 3), keepdim=True)) / count
    return centred * (variance + EPS).rsqrt()
