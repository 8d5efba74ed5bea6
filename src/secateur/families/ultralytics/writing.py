"""Writes a `.pt` that `YOLO(...)` loads, validates and exports without Secateur: the module of the package, cut."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from secateur.families.ultralytics.network import UltralyticsNetwork
from secateur.families.ultralytics.package import installed_version
from secateur.networks.architecture import outline

KEEPS_THE_CUT = (
    "YOLO('{file}') loads, validates and exports this file without Secateur, but a plain train() rebuilds the dense "
    "network from the YAML. To keep the widths, use train(trainer=secateur.ultralytics.%s)."
)
TRAINERS = {
    "detect": "Trainer",
    "segment": "SegmentationTrainer",
    "pose": "PoseTrainer",
    "obb": "OBBTrainer",
    "classify": "ClassificationTrainer",
}
"""Names in `secateur.ultralytics`, by task."""


def write_file(network: UltralyticsNetwork, file: Path, image_size: int) -> str:
    """Writes the file, in fp16 if that is lossless.

    Returns:
        A note for the user if the YAML does not describe the network; otherwise "".
    """
    task = network.architecture.task
    model: Any = copy.deepcopy(network.model).cpu().eval()
    model.names = dict(network.names)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if all(torch.equal(value.half().to(value.dtype), value) for value in model.state_dict().values()):
        model.half()
    model.args = options = {**vars(model.args), "imgsz": image_size, "task": task, "mode": "train", "model": ""}
    model.criterion = None
    cut = _is_cut(network)
    content = {
        "epoch": -1,
        "best_fitness": None,
        "model": model,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": options,
        "train_metrics": None,
        "train_results": None,
        "date": datetime.now(timezone.utc).isoformat(),
        "version": installed_version(),
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
        "note": f"Pruned with Secateur from {_parameters(outline_of(network)):,} parameters." if cut else "",
    }
    torch.save(content, file)
    # Hidden layers of a head depend on the number of classes in the YAML, so another number is another network.
    anew = cut or network.nc != network.architecture.description["nc"]
    return KEEPS_THE_CUT % TRAINERS[task] if anew else ""


def outline_of(network: UltralyticsNetwork) -> Any:
    """The network as originally designed."""
    return outline(replace(network.architecture, numbers={}, chains={}), network.names)


def _is_cut(network: UltralyticsNetwork) -> bool:
    """Whether its widths differ from its description."""
    designed = {name: tensor.shape for name, tensor in outline_of(network).state_dict().items()}
    return designed != {name: tensor.shape for name, tensor in network.state_dict().items()}


def _parameters(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
