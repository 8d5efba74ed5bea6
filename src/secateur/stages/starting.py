"""Where a training starts from: weights, a model YAML, or both, fitted to the classes of a data set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import torch
from torch import nn

from secateur.detector.checkpoint import Checkpoint, load_checkpoint, transfer
from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from secateur.errors import UserError

LOG = logging.getLogger("secateur")


def starting_point(weights: str, cfg: str, names: Mapping[int, str], seed: int = 0) -> Checkpoint:
    """The checkpoint that a training with these classes starts from.

    With weights alone the network keeps its shapes (a pruned one stays pruned); if the classes differ, a fresh head
    replaces the old one. With a model YAML alone the network is fresh; with both, every tensor that fits is taken over.

    Raises:
        UserError: neither is given, or the YAML and the weights are different networks.
    """
    if not weights and not cfg:
        raise UserError("Nothing to start from: give --weights best.pt, or --cfg yolov5n to train from scratch.")
    torch.manual_seed(seed)
    names = dict(names)
    if not cfg:
        checkpoint = load_checkpoint(weights)
        if same_classes(checkpoint, names):
            return dataclasses.replace(checkpoint, names=names)
        return with_classes(checkpoint, names)
    detector = Detector(Topology.from_yaml(cfg, nc=len(names)), names)
    if not weights:
        return Checkpoint.of(detector)
    checkpoint = load_checkpoint(weights)
    copied, total = transfer(detector, checkpoint), len(detector.state_dict())
    if copied < total / 2:
        raise UserError(
            f"--cfg {cfg} is not the network of {weights}: only {copied} of its {total} tensors fit; "
            "leave --cfg out to keep the network of the weights."
        )
    LOG.info("%d of %d tensors taken over from %s", copied, total, weights)
    return Checkpoint.of(detector, like=dataclasses.replace(checkpoint, names=names, topology=detector.topology))


def same_classes(checkpoint: Checkpoint, names: Mapping[int, str]) -> bool:
    """Whether the checkpoint predicts these classes: as many of them, and not known by quite other names."""
    if checkpoint.topology.nc != len(names):
        return False
    ours, theirs = set(names.values()), set(checkpoint.names.values())
    generic = all(name == f"class{index}" or name == str(index) for index, name in checkpoint.names.items())
    return generic or bool(ours & theirs)


def with_classes(checkpoint: Checkpoint, names: Mapping[int, str]) -> Checkpoint:
    """The same network with a fresh head for other classes; all other tensors, pruned widths included, are kept."""
    topology = dataclasses.replace(checkpoint.topology, nc=len(names))
    detector = Detector(topology, dict(names))
    prefix = f"model.{len(topology.blocks) - 1}."
    tensors = dict(checkpoint.tensors)
    for level, fresh in enumerate(detector.head.m):
        assert isinstance(fresh, nn.Conv2d) and fresh.bias is not None
        old = tensors[f"{prefix}m.{level}.weight"]
        conv = nn.Conv2d(old.shape[1], fresh.out_channels, 1)
        tensors[f"{prefix}m.{level}.weight"] = conv.weight.detach().clone()
        tensors[f"{prefix}m.{level}.bias"] = fresh.bias.detach().clone()
    LOG.info("Fresh head for %d classes (the weights know %d)", len(names), checkpoint.topology.nc)
    return dataclasses.replace(checkpoint, topology=topology, tensors=tensors, names=dict(names), plan=None, masks={})
