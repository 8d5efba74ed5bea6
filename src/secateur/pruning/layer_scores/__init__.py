"""How much each block of a chain matters: one file a score; every file here is found by itself.

A new score is one file here, or one of the user's, with a function under the decorator `layer_score`. Taking a block
out replaces its output y by its input x; for a residual block, y = x + F(x), the change is -F(x).
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
    """What a score may read besides the weights.

    Attributes:
        batches: images [B, C, H, W] in 0..1 for scores that read images; whatever `loss` takes for those that read
            labels. None where none are given.
        loss: takes the network (in eval mode) and a batch, gives a scalar; None where none is given.
    """

    batches: Iterable[Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None


Measure = Callable[[nn.Module, Mapping[str, nn.Module], LayerEvidence], dict[str, float]]


@dataclass(frozen=True)
class LayerScore:
    """A measure, given the network and blocks by name, and what it reads: weights, images or labelled images."""

    measure: Measure
    reads: Reads


LAYER_SCORES: Registry[LayerScore] = Registry("layer score", "secateur.pruning.layer_scores")


def layer_score(name: str, *, reads: Reads) -> Callable[[Measure], Measure]:
    """Registers a measure under a name."""

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
    """Scores of blocks by name, not negative, higher is more important. The network is left as it was.

    Args:
        blocks: names of blocks whose input and output have one shape ("model.4.m.0").
        method: a name in `LAYER_SCORES`.
        batches: see `LayerEvidence`.
        loss: see `LayerEvidence`.
        limit: batches at most.

    Raises:
        UserError: unknown method, no images or labels for one that reads them, or a score that is not finite.
    """
    score = LAYER_SCORES[method]
    modules = {name: network.get_submodule(name) for name in blocks}
    if not modules:
        return {}
    if score.reads != "weights" and batches is None:
        raise UserError(f"The layer score {method} reads images; give some or choose gamma.")
    if score.reads == "labels" and loss is None:
        raise UserError(f"The layer score {method} reads labelled images; give them or choose contribution or gamma.")
    evidence = LayerEvidence(None if batches is None else islice(batches, limit), loss)
    with evaluating(network):
        values = score.measure(network, modules, evidence)
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise UserError(f"The score of {broken[0]} is not finite; the checkpoint or an image is broken.")
    return values


def observed(
    blocks: Mapping[str, nn.Module], watch: Callable[[str, Tensor, Tensor], Tensor | None]
) -> AbstractContextManager[None]:
    """While this lasts, calls `watch(name, input, output)` at every pass through a block; what it returns takes the
    output's place."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        return lambda module, inputs, output: watch(name, inputs[0], output)

    return hooked(module.register_forward_hook(hook(name)) for name, module in blocks.items())
