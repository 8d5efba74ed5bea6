"""Where a training starts from: weights, a model YAML, or both, fitted to the classes of a data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch

from secateur.detector.architectures.yolov5 import YOLOv5
from secateur.detector.checkpoint import Checkpoint, load_checkpoint
from secateur.detector.classes import knows_classes
from secateur.detector.fresh_head import head_tensors
from secateur.detector.model import Detector
from secateur.detector.topology import Block, Topology
from secateur.errors import UserError

LOG = logging.getLogger("secateur")


def starting_point(weights: str, cfg: str, names: Mapping[int, str], seed: int = 0, anchors: int = 0) -> Checkpoint:
    """The checkpoint that a training with these classes starts from.

    With weights alone the network keeps its shapes (a pruned one stays pruned); a head that does not know these classes
    starts afresh. With a model YAML alone the network is fresh. With both, the YAML must describe the network of the
    weights and gives the anchors.

    Args:
        weights: a checkpoint, or an official name; may be empty.
        cfg: a model YAML, or a name of the family; may be empty.
        names: class id -> name of the data set.
        seed: of the fresh weights.
        anchors: anchors per level of a fresh network (hyp key `anchors`); 0 keeps those of the YAML.

    Raises:
        UserError: neither is given, or the YAML and the weights are different networks.
    """
    if not weights and not cfg:
        raise UserError("Nothing to start from: give --weights best.pt, or --cfg yolov5n to train from scratch.")
    torch.manual_seed(seed)
    if not weights:
        return Checkpoint.of(Detector(Topology.from_yaml(cfg, nc=len(names), anchors=anchors), names))
    checkpoint = load_checkpoint(weights, cfg)
    if cfg:
        written = Topology.from_yaml(cfg, nc=len(names))
        check_topology(checkpoint, written)
    if not knows_classes(checkpoint.names, names):
        known = "other classes" if checkpoint.nc == len(names) else f"{checkpoint.nc} classes"
        LOG.info("Fresh head for %d classes (the weights know %s)", len(names), known)
        # A plan speaks of the network that was cut from, whose head is no more; masks speak of weights that were.
        detector = checkpoint.detector_for(names)
        head = head_tensors(checkpoint.architecture.with_classes(len(names)))
        held = {name: mask for name, mask in checkpoint.masks.items() if name not in head}
        checkpoint = Checkpoint.of(detector, like=replace(checkpoint, plan=None, masks=held))
    if cfg:
        fresh = Checkpoint.of(Detector(written, names)).tensors
        own = {name: tensor for name, tensor in fresh.items() if name.endswith(".anchors")}
        topology = replace(checkpoint.topology, anchors=written.anchors, anchors_pending=written.anchors_pending)
        checkpoint = replace(checkpoint, architecture=YOLOv5(topology), tensors={**checkpoint.tensors, **own})
    return replace(checkpoint, names=dict(names))


def check_topology(checkpoint: Checkpoint, topology: Topology) -> None:
    """Refuses a topology (`--cfg`) that is not the network of the weights; classes and anchors may differ.

    Raises:
        UserError: naming the first block that differs.
    """
    ours, theirs = checkpoint.topology, topology
    if len(ours.blocks) != len(theirs.blocks):
        raise UserError(
            f"The model file (--cfg) has {len(theirs.blocks)} blocks and the weights have {len(ours.blocks)}: they are "
            "different networks; leave --cfg out to use the network of the weights."
        )
    for i, (a, b) in enumerate(zip(ours.blocks, theirs.blocks, strict=True)):
        same_sources = ours.absolute_sources()[i] == theirs.absolute_sources()[i]
        if (a.kind, a.repeats, a.args) != (b.kind, b.repeats, b.args) or not same_sources:
            raise UserError(
                f"Block {i} is {_row(b)} in the model file (--cfg) and {_row(a)} in the weights: they are different "
                "networks; leave --cfg out to use the network of the weights."
            )
    if ours.activation != theirs.activation or ours.channels != theirs.channels:
        raise UserError(
            f"The model file (--cfg) has {theirs.activation} on {theirs.channels} image channels and the weights have "
            f"{ours.activation} on {ours.channels}; leave --cfg out to use the network of the weights."
        )


def _row(block: Block) -> str:
    return f"{block.repeats} x {block.kind}{list(block.args)} of {list(block.sources)}"
