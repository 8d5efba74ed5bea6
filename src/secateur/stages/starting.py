"""Where a training starts from: weights, a model YAML, or both, fitted to the classes of a data set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import torch

from secateur.detector.checkpoint import Checkpoint, check_topology, load_checkpoint
from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from secateur.errors import UserError

LOG = logging.getLogger("secateur")


def starting_point(weights: str, cfg: str, names: Mapping[int, str], seed: int = 0, anchors: int = 0) -> Checkpoint:
    """The checkpoint that a training with these classes starts from.

    With weights alone the network keeps its shapes (a pruned one stays pruned); a head for another number of classes
    starts afresh. With a model YAML alone the network is fresh. With both, the YAML must describe the network of the
    weights and gives the anchors.

    Args:
        anchors: anchors per level of a fresh network (hyp key `anchors`); 0 keeps those of the YAML.

    Raises:
        UserError: neither is given, or the YAML and the weights are different networks.
    """
    if not weights and not cfg:
        raise UserError("Nothing to start from: give --weights best.pt, or --cfg yolov5n to train from scratch.")
    torch.manual_seed(seed)
    if not weights:
        return Checkpoint.of(Detector(Topology.from_yaml(cfg, nc=len(names), anchors=anchors), names))
    checkpoint = load_checkpoint(weights)
    if cfg:
        check_topology(checkpoint, Topology.from_yaml(cfg, nc=len(names)))
    if len(names) != checkpoint.topology.nc:
        LOG.info("Fresh head for %d classes (the weights know %d)", len(names), checkpoint.topology.nc)
        # A plan speaks of the network that was cut from, whose head is no more.
        fresh_head = checkpoint.detector_for(names)
        shapes = {name: tensor.shape for name, tensor in fresh_head.state_dict().items()}
        held = {name: mask for name, mask in checkpoint.masks.items() if mask.shape == shapes.get(name)}
        checkpoint = Checkpoint.of(fresh_head, like=dataclasses.replace(checkpoint, plan=None, masks=held))
    if cfg:
        fresh = Checkpoint.of(Detector(Topology.from_yaml(cfg, nc=len(names)), names)).tensors
        own = {name: tensor for name, tensor in fresh.items() if name.endswith(".anchors")}
        checkpoint = dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, **own})
    return dataclasses.replace(checkpoint, names=dict(names))


def same_classes(checkpoint: Checkpoint, names: Mapping[int, str]) -> bool:
    """Whether the checkpoint predicts these classes: as many of them, and not known by quite other names."""
    if checkpoint.topology.nc != len(names):
        return False
    ours, theirs = set(names.values()), set(checkpoint.names.values())
    generic = all(name == f"class{index}" or name == str(index) for index, name in checkpoint.names.items())
    return generic or bool(ours & theirs)
