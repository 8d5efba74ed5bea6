"""Trainers of the package that keep the widths of a cut network, which the original trainers would rebuild."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch

from secateur.errors import UserError
from secateur.families.ultralytics.network import with_outputs_
from secateur.families.ultralytics.package import needed

TRAINED = {
    "Trainer": ("models.yolo.detect", "DetectionTrainer"),
    "SegmentationTrainer": ("models.yolo.segment", "SegmentationTrainer"),
    "PoseTrainer": ("models.yolo.pose", "PoseTrainer"),
    "OBBTrainer": ("models.yolo.obb", "OBBTrainer"),
    "ClassificationTrainer": ("models.yolo.classify", "ClassificationTrainer"),
}
"""Names in `secateur.ultralytics`, and the module and name of the trainer of the package."""


@cache
def trainer_named(name: str) -> Any:
    """A subclass of the trainer of the package that trains the given network.

    Raises:
        UserError: the package is missing.
    """
    module, base = TRAINED[name]
    parent: Any = getattr(needed(module), base)

    def get_model(self: Any, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """The given network with its widths; for other classes, its last layers are replaced."""
        if weights is None:
            raise UserError(f"secateur.ultralytics.{name} needs a network to train. Call YOLO('pruned.pt').train(...).")
        return trained(weights, int(self.data["nc"]))

    return type(name, (parent,), {"__module__": "secateur.ultralytics", "__doc__": _DOC, "get_model": get_model})


_DOC = "For `YOLO('pruned.pt').train(trainer=...)`: trains the network with the widths that a cut left."


def trained(weights: Any, nc: int) -> Any:
    """A trainable copy of a network for this number of classes."""
    model = copy.deepcopy(weights).float().requires_grad_(True)
    head = model.model[-1]
    known = head.linear.out_features if isinstance(getattr(head, "linear", None), torch.nn.Linear) else head.nc
    if known != nc:
        with_outputs_(model, nc)
        if hasattr(head, "bias_init"):
            _initialize_last_layers_(head)
    model.criterion = None
    return model


def _initialize_last_layers_(head: Any) -> None:
    """Initialises new last layers for rare classes; biases of boxes keep their trained values."""
    boxes = {name: value.clone() for name, value in head.state_dict().items() if "cv2" in name}
    head.bias_init()
    head.load_state_dict(boxes, strict=False)
