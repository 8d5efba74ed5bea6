"""Where a training starts from: weights, a model YAML, or both, fitted to the classes of a data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch

from secateur.detector.architectures.yolov5 import YOLOv5
from secateur.detector.checkpoint import Checkpoint, load_checkpoint
from secateur.detector.classes import are_made_up, class_order, knows_classes
from secateur.detector.fresh_head import head_tensors, in_class_order
from secateur.detector.model import Detector
from secateur.detector.topology import Block, Topology
from secateur.errors import UserError

LOG = logging.getLogger("secateur")


def starting_point(weights: str, cfg: str, names: Mapping[int, str], seed: int = 0, anchors: int = 0) -> Checkpoint:
    """The checkpoint that a training with these classes starts from.

    With weights alone the network keeps its shapes (a pruned one stays pruned); a head that knows these classes in
    another order is put into this one, one that does not know them starts afresh. With a model YAML alone the network
    is fresh. With both, the YAML must describe the network of the weights and gives the anchors.

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
    checkpoint = for_classes(checkpoint, names)
    if cfg:
        fresh = Checkpoint.of(Detector(written, names)).tensors
        own = {name: tensor for name, tensor in fresh.items() if name.endswith(".anchors")}
        topology = replace(checkpoint.topology, anchors=written.anchors, anchors_pending=written.anchors_pending)
        checkpoint = replace(checkpoint, architecture=YOLOv5(topology), tensors={**checkpoint.tensors, **own})
    return checkpoint


def keeps_its_head(checkpoint: Checkpoint, names: Mapping[int, str]) -> bool:
    """Whether a detector knows these classes, in this order or in another one into which its head can be put."""
    return knows_classes(checkpoint.names, names) or _new_order(checkpoint, names) is not None


def for_classes(checkpoint: Checkpoint, names: Mapping[int, str]) -> Checkpoint:
    """The checkpoint for these classes; a notice says what becomes of a head that does not know them as they are.

    Where they are its own in another order, the outputs of the head change places; otherwise the head starts afresh.
    Names that are made up replace none.
    """
    if knows_classes(checkpoint.names, names):
        return checkpoint if are_made_up(names) else replace(checkpoint, names=dict(names))
    order = _new_order(checkpoint, names)
    if order is not None:
        LOG.info("The weights know these classes in another order: the class outputs of the head change places")
        tensors, masks = (
            in_class_order(checkpoint.architecture, values, order) for values in (checkpoint.tensors, checkpoint.masks)
        )
        return replace(checkpoint, tensors=tensors, masks=masks, names=dict(names))
    known = "other classes" if checkpoint.nc == len(names) else _count(checkpoint.nc)
    LOG.info("Fresh head for %s (the weights know %s)", _count(len(names)), known)
    # A plan speaks of the network that was cut from, whose head is no more; masks speak of weights that were.
    detector = checkpoint.detector_for(names)
    head = head_tensors(checkpoint.architecture.with_classes(len(names)))
    held = {name: mask for name, mask in checkpoint.masks.items() if name not in head}
    fresh = Checkpoint.of(detector, like=replace(checkpoint, plan=None, masks=held))
    return replace(fresh, names=dict(names))


def _new_order(checkpoint: Checkpoint, names: Mapping[int, str]) -> tuple[int, ...] | None:
    """For every class its place in the head of the weights; None where they are others, or the head is not known."""
    known = isinstance(checkpoint.architecture, YOLOv5) and checkpoint.topology.blocks[-1].kind == "Detect"
    return class_order(checkpoint.names, names) if known else None


def _count(classes: int) -> str:
    return f"{classes} {'class' if classes == 1 else 'classes'}"


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
