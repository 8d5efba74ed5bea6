"""Loads and saves checkpoints and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from secateur.api.arguments import Model, checkpoint_of
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import save_checkpoint

Network = TypeVar("Network", bound=nn.Module)


def load(path: str | Path, network: Network | None = None, *, cfg: str | Path = "") -> Any:
    """Loads a checkpoint: a `.safetensors` file of this package, a YOLOv5 `.pt`, or an official name. Code in the file
    is never executed.

    Args:
        path: the file, or an official name.
        network: for a file that `save` wrote from a plain `nn.Module`: the same network before the cut. The result is a
            copy of it with the shapes and values of the file.
        cfg: model YAML file or name, for a `.pt` with a state dict but no network.

    Raises:
        UserError: the file is missing, invalid or not supported.

    >>> checkpoint = load("yolov5n.pt")  # doctest: +SKIP
    >>> detector = checkpoint.build()  # doctest: +SKIP
    >>> from torchvision.models import resnet18
    >>> save(resnet18(), "whole.safetensors")
    >>> network = load("whole.safetensors", network=resnet18())
    """
    checkpoint = load_checkpoint(path, cfg)
    return checkpoint if network is None else checkpoint.into(network)


def save(model: Model, path: str | Path) -> None:
    """Writes a `.safetensors` file: a checkpoint with its plan and history, or any network.

    Args:
        model: a checkpoint, the path of one, or a network.
        path: file to write.

    Raises:
        UserError: the file cannot be written.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> save(Detector(Topology.from_yaml("yolov5n", nc=3)), "fresh.safetensors")
    """
    save_checkpoint(checkpoint_of(model), path)
