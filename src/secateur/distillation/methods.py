"""What a student can imitate: one class a method; here those that work for any network."""

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
"""Values of a channel in a batch under which their spread says nothing."""
FLOOR = 0.0001
"""Least variance of a channel, as a share of the mean variance of all channels of its tensor."""


@dataclass(frozen=True)
class Views:
    """One batch of this process as student and teacher see it: all float32 (float64 where the networks are), nothing of
    the teacher's with a gradient.

    Attributes:
        student, teacher: what the networks return.
        targets: of the batch.
        share: images of this process over images of all; a mean over this process's images times it is its share of the
            mean over the images of all.
        student_features, teacher_features: what feeds the head, [B, c, ...] for each of its layers, the same channels
            of both; empty unless a method with `features` is in use.
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
    """Whether it compares features: it then works between a network and what was cut from it only."""

    def __init__(self, settings: DistillSettings) -> None:
        self.settings = settings

    @abstractmethod
    def __call__(self, view: Any) -> dict[str, Tensor]:
        """Loss parts of `Views` by name (d_feat, ...): scalars to differentiate, not times the batch size.

        With several processes each gives its share: the parts' sum over processes is the loss of the whole batch.
        """


class StandardisedOutputs(Method):
    """Every floating tensor that the network returns, against the teacher's.

    Each channel is measured in standard deviations of the teacher's over the batch, so that what the outputs mean does
    not matter: boxes in pixels and scores count alike. All tensors count alike, and so do the channels of a tensor. A
    channel is an entry of dimension 1 of maps [B, C, H, W], and of the last dimension of [B, N, C] and [B, C].
    """

    def __call__(self, view: Views) -> dict[str, Tensor]:
        """Part d_out: the mean squared difference; 1 is about what the teacher's mean as the only answer costs."""
        pairs = paired_outputs(view.student, view.teacher)
        values = [_difference(by_channel(student), by_channel(teacher)) for student, teacher in pairs]
        return {"d_out": torch.stack(values).mean() * view.share}


def paired_outputs(student: Any, teacher: Any) -> list[tuple[Tensor, Tensor]]:
    """The floating tensors in two nests of dicts, lists and tuples, one by one.

    Raises:
        UserError: there is none, or the two differ in number or in shape.
    """
    mine, theirs = (
        [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        for outputs in (student, teacher)
    )
    if not mine:
        raise UserError("The network returns no floating tensor, so there is nothing that could be imitated.")
    shapes, others = ([tuple(tensor.shape) for tensor in tensors] for tensors in (mine, theirs))
    if shapes != others:
        raise UserError(
            f"The network returns tensors of the shapes {_listed(shapes)} and its teacher {_listed(others)}; give the "
            "network that it was cut from as the teacher."
        )
    return list(zip(mine, theirs, strict=True))


def by_channel(values: Tensor) -> Tensor:
    """A tensor as [channels, values of each]; see `StandardisedOutputs` for what a channel is."""
    if values.ndim < 2:
        return values.reshape(1, -1)
    return values.transpose(0, 1 if values.ndim > 3 else values.ndim - 1).flatten(1)


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of [C, n], in variances of the teacher's channels over the batch of all processes."""
    count = sum_over_processes(teacher.new_tensor(float(teacher.shape[1])))
    mean = sum_over_processes(teacher.sum(1, keepdim=True)) / count
    variance = sum_over_processes((teacher - mean).square().sum(1, keepdim=True)) / count
    if count < FEW:  # of a batch of one image, say: then all channels are measured by the spread of their values
        variance = (teacher - teacher.mean()).square().mean()
    variance = variance + FLOOR * variance.mean() + EPS
    return ((student - teacher).square() / variance).mean()


class StandardisedFeatures(Method):
    """Mean squared difference of features standardised channel by channel over batch and space.

    For one channel it is 2 - 2 * correlation: scale and shift, which the head can undo, cost nothing, and loud channels
    do not outvote quiet ones (the idea of normalising features before comparing them: Cao et al., "PKD", NeurIPS 2022).
    The channels are exactly those that the cut kept, so there is no projector to train. Levels count alike.
    """

    features = True

    def __call__(self, view: Views) -> dict[str, Tensor]:
        """Part d_feat, in 0..4."""
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
"""What `--distill` can name for networks of any family."""


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
