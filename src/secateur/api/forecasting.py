"""Predicts what budgets would cost and lose before anything is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateur.api.arguments import Data, Device, Model, checkpoint_of, context_of
from secateur.api.images import Source
from secateur.api.options import settings_of, typed
from secateur.checkpoints.forecast import Forecast, forecast
from secateur.deploy.speed.rounding import decided_guards
from secateur.families.only_classes import only_classes
from secateur.pruning.options import ChannelSettings, GuardSettings, LatencySettings, budget_options
from secateur.pruning.settings import ScoreSettings


def what_if(
    checkpoint: Model,
    data: Data | None = None,
    *,
    images: Source = None,
    classes: Sequence[str | int] = (),
    rgb: bool = False,
    image_size: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    device: Device = "auto",
    **options: Any,
) -> Forecast:
    """Predicts costs and losses at a series of targets, and the smallest reachable cost. Nothing is cut.

    Args:
        checkpoint: a checkpoint, the path of one, or a network.
        data: a data.yaml whose training images are used to predict the loss of each cut.
        images: images to use instead, see `prune`. Without images, only costs are predicted.
        classes: names or ids of the classes to keep.
        rgb: arrays among the images are RGB.
        image_size: px of a side; 0 uses the size stored in the checkpoint.
        batch_size: images per batch.
        seed: random seed.
        device: device to run on.
        options: budgets by name (`flops=0.5`, `size="2MB"`), and the fields of the settings of scores, guards and
            latency.

    Raises:
        TypeError: an option is unknown, or a value has another type.
        UserError: an image cannot be read, or there is no budget.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    >>> found = what_if(detector, size="0.5:yolov5", image_size=64)
    >>> found.rungs[0].mb > found.smallest.mb > 0
    True
    """
    kinds = (budget_options(), ScoreSettings, GuardSettings, LatencySettings)
    budget, scoring, guards, timing = settings_of(what_if, options, *kinds)
    timed = any(entry.cost == "ms" for entry in ChannelSettings(budget).budgets)
    guards = decided_guards(guards, timing, milliseconds=timed)
    settings = ChannelSettings(budget, scoring, guards=guards, latency=timing)
    start = checkpoint_of(checkpoint)
    if chosen := typed(what_if, "classes", classes, tuple[str | int, ...]):
        start = only_classes(start, chosen)
    with context_of(
        what_if, start, data, images=images, rgb=rgb, image_size=image_size, batch_size=batch_size, seed=seed,
        device=device,
    ) as context:  # fmt: skip
        return forecast(start, context, settings)
