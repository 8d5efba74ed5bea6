"""Scores of blocks, one file per score. All files in this folder are loaded automatically.

To add a score, add a file here, or import one of your own, with a function decorated with `layer_score`. Removing a
block replaces its output y by its input x; for a residual block, y = x + F(x), the change is -F(x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.layers import evaluating, hooked
from secateur.registry import Registry

__all__ = ["LAYER_SCORES", "LayerEvidence", "LayerScore", "layer_score", "layer_scores", "observed"]

Reads = Literal["weights", "images", "labels"]


@dataclass(frozen=True)
class LayerEvidence:
    """Input of a score besides the weights.

    Attributes:
        batches: float images [B, C, H, W] in 0..1 for scores that read images; batches for `loss` for scores that read
            labels; None if not given.
        loss: takes the network (in eval mode) and a batch, returns a scalar; None if not given.
    """

    batches: Iterable[Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None


Measure = Callable[[nn.Module, Mapping[str, nn.Module], LayerEvidence], dict[str, float]]


@dataclass(frozen=True)
class LayerScore:
    """A function of the network and its blocks by name, and what it reads: weights, images or labelled images."""

    measure: Measure
    reads: Reads


LAYER_SCORES: Registry[LayerScore] = Registry("layer score", "secateur.pruning.layer_scores")


def layer_score(name: str, *, reads: Reads) -> Callable[[Measure], Measure]:
    """Registers a score under a name."""

    def register(measure: Measure) -> Measure:
        LAYER_SCORES.register(name)(LayerScore(measure, reads))
        return measure

    return register


def layer_scores(
    network: nn.Module,
    blocks: Iterable[str],
    method: str,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    *,
    limit: int | None = None,
) -> dict[str, float]:
    """Scores of blocks by name, not negative; higher is more important. The network is not changed.

    Args:
        blocks: names of blocks whose input and output have the same shape ("model.4.m.0").
        method: a key of `LAYER_SCORES`.
        batches: see `LayerEvidence`.
        loss: see `LayerEvidence`.
        limit: maximum number of batches.

    Raises:
        UserError: the method is unknown, images or labels that it needs are missing, or a score is not finite.
    """
    score = LAYER_SCORES[method]
    modules = {name: network.get_submodule(name) for name in blocks}
    if not modules:
        return {}
    if score.reads != "weights" and batches is None:
        raise UserError(f"The layer score {method} needs images. Provide images, or use gamma.")
    if score.reads == "labels" and loss is None:
        raise UserError(f"The layer score {method} needs labelled images. Provide them, or use contribution or gamma.")
    evidence = LayerEvidence(None if batches is None else islice(batches, limit), loss)
    with evaluating(network):
        values = score.measure(network, modules, evidence)
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"The score of {broken[0]} is not finite. Check the checkpoint and the images for NaN and infinity."
        )
    return values


def observed(
    blocks: Mapping[str, nn.Module], watch: Callable[[str, Tensor, Tensor], Tensor | None]
) -> AbstractContextManager[None]:
    """Context in which `watch(name, input, output)` is called for every pass through a block.

    Tensors have any shape. If `watch` returns a tensor, it replaces the output of the block.
    """

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        return lambda module, inputs, output: watch(name, inputs[0], output)

    return hooked(module.register_forward_hook(hook(name)) for name, module in blocks.items())
