"""Checkpoints and networks: read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from secateur.api.arguments import Model, checkpoint_of
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import save_checkpoint

Network = TypeVar("Network", bound=nn.Module)


def load(path: str | Path, network: Network | None = None, *, cfg: str | Path = "") -> Any:
    """Reads a checkpoint: ours, an upstream YOLOv5 `.pt`, or an official name; nothing in the file is executed.

    Args:
        network: for a file that `save` made of a plain `nn.Module`: the same network before it was cut. What comes
            back is then a copy of it with the shapes and values of the file.
        cfg: model YAML, or a name of the family, for a `.pt` that holds a state dict and no network.

    >>> checkpoint = load("yolov5n.pt")  # doctest: +SKIP
    >>> detector = checkpoint.build()  # doctest: +SKIP
    >>> from torchvision.models import resnet18
    >>> save(resnet18(), "whole.safetensors")
    >>> network = load("whole.safetensors", network=resnet18())
    """
    checkpoint = load_checkpoint(path, cfg)
    return checkpoint if network is None else checkpoint.into(network)


def save(model: Model, path: str | Path) -> None:
    """Writes one `.safetensors` file: of a checkpoint, or of the file of one, with its plan and history; or of any
    network.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> save(Detector(Topology.from_yaml("yolov5n", nc=3)), "fresh.safetensors")
    """
    save_checkpoint(checkpoint_of(model), path)
