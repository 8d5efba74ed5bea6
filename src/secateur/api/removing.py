"""Removes bottlenecks and zeroes weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, overload

from torch import nn

from secateur.api.arguments import Data, Device, Model, checkpoint_of, context_of, detector_of
from secateur.api.images import Source
from secateur.api.options import settings_of, typed
from secateur.checkpoints import layers as shortening
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning import depth
from secateur.pruning.settings import LayerSettings, RepairSettings
from secateur.sparsity.one_shot import zero_weights
from secateur.sparsity.settings import OneShotSettings

Network = TypeVar("Network", bound=nn.Module)


@overload
def remove(model: Checkpoint | str | Path, blocks: str | Iterable[str]) -> Checkpoint: ...


@overload
def remove(model: Network, blocks: str | Iterable[str]) -> Network: ...


def remove(model: Model, blocks: str | Iterable[str]) -> Checkpoint | nn.Module:
    """Returns a new model without the given bottlenecks. `secateur.pruning.depth` lists and scores the removable ones.

    For a checkpoint, or the path of one, the result is a checkpoint that records them in its plan and history.

    Args:
        model: a checkpoint, the path of one, or a detector; it is not changed.
        blocks: names of bottlenecks.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> from secateur.pruning.depth import candidates
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> [block.name for block in candidates(detector)][:2]
    ['model.2.m.0', 'model.4.m.0']
    >>> shallower = remove(detector, ["model.4.m.0"])
    >>> len(candidates(detector)) - len(candidates(shallower))
    1
    """
    names = typed(remove, "blocks", blocks, tuple[str, ...])
    if isinstance(model, nn.Module):
        return depth.remove(model, names)
    return shortening.without_blocks(checkpoint_of(model), names)


def shorten(
    checkpoint: Model,
    layers: int,
    data: Data | None = None,
    *,
    images: Source = None,
    rgb: bool = False,
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: Device = "auto",
    **options: Any,
) -> Checkpoint:
    """Removes the `layers` least important bottlenecks and compensates for their mean output.

    Args:
        checkpoint: a checkpoint, the path of one, or a detector.
        layers: number of bottlenecks to remove.
        data: a data.yaml whose training images are used for scores and corrections.
        images: unlabelled images to use instead, see `prune`.
        rgb: arrays among the images are RGB.
        image_size: px of a side; 0 uses the size stored in the checkpoint.
        batch_size: images per batch.
        seed: random seed.
        device: device to run on.
        options: the fields of `LayerSettings` (`layer_score="gamma"` needs no images) and `RepairSettings`.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> len(shorten(checkpoint, 2, layer_score="gamma").plan["removed_blocks"])
    2
    """
    chosen, repaired = settings_of(shorten, options | {"layers": layers}, LayerSettings, RepairSettings)
    whole = detector_of(shorten, checkpoint)
    with context_of(
        shorten, whole, data, images=images, rgb=rgb, image_size=image_size, batch_size=batch_size, seed=seed,
        device=device,
    ) as context:  # fmt: skip
        return shortening.remove_layers(whole, context, chosen, repaired)[0]


def zero(checkpoint: Model, share: float, **options: Any) -> Checkpoint:
    """Sets the smallest weights of every convolution to zero. Later trainings keep the zeros.

    Args:
        checkpoint: a checkpoint, the path of one, or a network.
        share: share of the weights, between 0 and 1.
        options: `scope` ("layer" or "global"), `pattern` ("1x1", "4x1", "2:4", ...), `exclude` (patterns of names).

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> checkpoint = zero(Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3))), 0.5, pattern="2:4")
    >>> float((checkpoint.tensors["model.1.conv.weight"] == 0).float().mean())
    0.5
    """
    [settings] = settings_of(zero, options | {"unstructured": share}, OneShotSettings)
    sparse, _ = zero_weights(checkpoint_of(checkpoint), settings)
    return sparse
