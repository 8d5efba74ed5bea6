"""Distillation methods, one class each; the ones in this file work for any network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.training.distributed import sum_over_processes, total_over_processes, world_size

EPS = 1e-5
FEW = 8
"""Minimum number of values of a channel in a batch for a meaningful variance."""
FLOOR = 0.0001
"""Minimum variance of a channel, as a share of the mean variance of all channels of its tensor."""


@dataclass(frozen=True)
class Views:
    """One batch of this process, as processed by student and teacher: all float32 (float64 for float64 networks);
    tensors of the teacher have no gradients.

    Attributes:
        student, teacher: outputs of the networks.
        targets: targets of the batch.
        share: images of this process relative to images of all processes, a scalar; the mean over this process times it
            is its share of the mean over all images.
        student_features, teacher_features: inputs of the head, [B, c, ...] for each of its layers, with the same
            channels in both; empty unless a method with `features` is used.
    """

    student: Any
    teacher: Any
    targets: Tensor
    share: Tensor
    student_features: tuple[Tensor, ...] = ()
    teacher_features: tuple[Tensor, ...] = ()


class Method(ABC):
    """One method."""

    features: ClassVar[bool] = False
    """Whether it compares features. It then only works between a network and one that was cut from it."""

    def __init__(self, settings: DistillSettings) -> None:
        self.settings = settings

    @abstractmethod
    def __call__(self, view: Any) -> dict[str, Tensor]:
        """Loss terms of `Views` by name (d_feat, ...): scalars to differentiate, not times the batch size.

        With several processes, each returns its share: the sum of the terms over processes is the loss of the whole
        batch.
        """


class StandardisedOutputs(Method):
    """Compares all floating-point tensors that the networks return.

    Each channel is measured in standard deviations of the teacher over the batch, so that different kinds of outputs,
    such as boxes in pixels and scores, have equal weight. All tensors have equal weight, and so have the channels of a
    tensor. A channel is an entry of dimension 1 of maps [B, C, H, W], and of the last dimension of [B, N, C] and [B,
    C].
    """

    def __call__(self, view: Views) -> dict[str, Tensor]:
        """The term d_out: the mean squared difference, a scalar; 1 is about the loss of always predicting the mean
        of the teacher."""
        pairs = paired_outputs(view.student, view.teacher)
        values = [_difference(by_channel(student), by_channel(teacher)) for student, teacher in pairs]
        return {"d_out": torch.stack(values).mean() * view.share}


def paired_outputs(student: Any, teacher: Any) -> list[tuple[Tensor, Tensor]]:
    """Pairs of floating-point tensors, of any shape, in two nested structures of dicts, lists and tuples.

    Raises:
        UserError: there are none, or the two differ in number or shape.
    """
    mine, theirs = (
        [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        for outputs in (student, teacher)
    )
    if not mine:
        raise UserError("The network returns no floating-point tensor, so it cannot imitate a teacher.")
    shapes, others = ([tuple(tensor.shape) for tensor in tensors] for tensors in (mine, theirs))
    if shapes != others:
        raise UserError(
            f"The network returns tensors of the shapes {_listed(shapes)}, but its teacher {_listed(others)}. Set the "
            "teacher to the network that it was cut from."
        )
    return list(zip(mine, theirs, strict=True))


def by_channel(values: Tensor) -> Tensor:
    """A tensor as [channels, values of each]; see `StandardisedOutputs` for the definition of a channel."""
    if values.ndim < 2:
        return values.reshape(1, -1)
    return values.transpose(0, 1 if values.ndim > 3 else values.ndim - 1).flatten(1)


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of [C, n], relative to the variances of the channels of the teacher over the batch of
    all processes."""
    count = sum_over_processes(teacher.new_tensor(float(teacher.shape[1])))
    mean = sum_over_processes(teacher.sum(1, keepdim=True)) / count
    variance = sum_over_processes((teacher - mean).square().sum(1, keepdim=True)) / count
    if count < FEW:  # for example for a batch of one image; then the variance over all channels is used
        variance = (teacher - teacher.mean()).square().mean()
    variance = variance + FLOOR * variance.mean() + EPS
    return ((student - teacher).square() / variance).mean()


class StandardisedFeatures(Method):
    """Mean squared difference of features, standardised per channel over batch and space.

    For one channel it is 2 - 2 * correlation. Scale and shift, which the head can compensate, have no effect, and
    channels with large values do not dominate (the idea of normalising features before comparing them: Cao et al.,
    "PKD", NeurIPS 2022). The compared channels are exactly those that the cut kept, so no projector is trained. Levels
    have equal weight.
    """

    features = True

    def __call__(self, view: Views) -> dict[str, Tensor]:
        """The term d_feat, a scalar in 0..4."""
        value = view.share.new_zeros(())
        for here, there in zip(view.student_features, view.teacher_features, strict=True):
            value = value + (standardised(here) - standardised(there)).square().mean()
        return {"d_feat": value * view.share / len(view.student_features)}


def standardised(features: Tensor) -> Tensor:
    """Features [B, c, ...] with mean 0 and variance 1 in every channel over the batch of all processes."""
    others = (0, *range(2, features.ndim))
    if world_size() == 1:
        variance, mean = torch.var_mean(features, others, correction=0, keepdim=True)
        return (features - mean) * (variance + EPS).rsqrt()
    count = total_over_processes(features.new_tensor(float(features.numel() // features.shape[1])))
    centred = features - total_over_processes(features.sum(others, keepdim=True)) / count
    variance = total_over_processes(centred.square().sum(others, keepdim=True)) / count
    return centred * (variance + EPS).rsqrt()


METHODS: dict[str, type[Method]] = {"outputs": StandardisedOutputs, "features": StandardisedFeatures}
"""Methods of `--distill` for networks of any family."""


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
