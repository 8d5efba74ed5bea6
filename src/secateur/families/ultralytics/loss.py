"""The loss of the package, for raw outputs and targets of Secateur."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.families.ultralytics.evidence.targets import unpacked
from secateur.families.ultralytics.network import UltralyticsNetwork


class PackageLoss:
    """The loss terms of the package for the task of a network, see `training.objective.Term`.

    The gains are those of the training that the network comes from (`Ultralytics.args`), otherwise the defaults of the
    package.
    """

    def __init__(self, network: UltralyticsNetwork) -> None:
        self.network, self.task = network, network.architecture.task
        self._criterion: Any = None
        self._device: torch.device | None = None

    def __call__(self, raw: Any, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss times the batch size, a scalar, and its terms.

        Args:
            targets: see `evidence.targets`.
        """
        batch = unpacked(self.task, targets, images, self.network.model.args)
        criterion = self._of(images.device)
        if self.task == "classify":
            mean, _ = criterion(raw, batch)
            return mean * len(images), {"cls": mean.detach()}
        total, parts = criterion(_with_maps(raw), batch)
        named = {name.removesuffix("_loss"): value.detach() for name, value in parts.items()}
        return total.sum(), named

    def _of(self, device: torch.device) -> Any:
        """The criterion, created for each device."""
        if self._criterion is None or self._device != device:
            self._criterion, self._device = self.network.model.init_criterion(), device
        return self._criterion


def _with_maps(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Raw outputs in the form that the criterion of the package reads; it uses only size and dtype of the feature
    maps."""
    if "sizes" not in raw:
        return {name: _with_maps(branch) for name, branch in raw.items()}
    like = raw["scores"]
    maps = [like.new_empty((len(like), 1, *size)) for size in raw["sizes"]]
    turned = {
        name: value.transpose(1, 2) for name, value in raw.items() if isinstance(value, Tensor) and value.ndim == 3
    }
    return {**raw, **turned, "feats": maps}
