"""Where a training starts from: weights, a model YAML, or both, fitted to the classes of a data set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import torch

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
        LOG.info("Fresh head for %d classes (the weights know %d)", len(names), checkpoint.topology.nc)
        # A plan speaks of the network that was cut from, whose head is no more.
        return Checkpoint.of(checkpoint.detector_for(names), like=dataclasses.replace(checkpoint, plan=None, masks={}))
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
