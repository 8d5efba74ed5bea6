"""Starting points of the family: untrained detectors from a model YAML, its anchors, and reordered classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from secateur.errors import UserError
from secateur.families.yolov5.architecture import YOLOv5, topology_of
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Block, Topology
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.picked_classes import picked


def fresh(cfg: str, names: Mapping[int, str], anchors: int = 0) -> Checkpoint:
    """An untrained detector.

    Args:
        cfg: a model YAML, or a name of the family.
        anchors: anchors per level; 0: those of the YAML.

    Raises:
        UserError: the YAML does not describe a network.
    """
    return Checkpoint.of(Detector(Topology.from_yaml(cfg, nc=len(names), anchors=anchors), names))


def with_config(checkpoint: Checkpoint, cfg: str, names: Mapping[int, str]) -> Checkpoint:
    """The checkpoint with the anchors of a model YAML that describes the same network.

    Raises:
        UserError: a block differs; the message names the first one.
    """
    written = Topology.from_yaml(cfg, nc=len(names))
    check_topology(checkpoint, written)
    fresh = Checkpoint.of(Detector(written, names)).tensors
    own = {name: tensor for name, tensor in fresh.items() if name.endswith(".anchors")}
    topology = replace(topology_of(checkpoint), anchors=written.anchors, anchors_pending=written.anchors_pending)
    return replace(checkpoint, architecture=YOLOv5(topology), tensors={**checkpoint.tensors, **own})


def pick_classes(checkpoint: Checkpoint, classes: tuple[int, ...]) -> Checkpoint:
    """A YOLOv5 detector with the outputs of only these classes, in this order; nothing else changes.

    A `Detect` layer has four box outputs, one objectness and one output per class for every anchor: the rows of its
    weights [anchors * (5 + nc), c, 1, 1] and biases [anchors * (5 + nc)]. The objectness still covers all trained
    classes, which the topology records.
    """
    found, topology = picked(checkpoint, classes, others=5), topology_of(checkpoint)
    trained = topology.trained_classes or topology.nc
    fewer = trained if len(classes) < trained else 0
    return replace(found, architecture=YOLOv5(replace(topology, nc=len(classes), trained_classes=fewer)))


def check_topology(checkpoint: Checkpoint, topology: Topology) -> None:
    """Checks that a topology (`--cfg`) is the network of the weights; classes and anchors may differ.

    Raises:
        UserError: a block differs; the message names the first one.
    """
    ours, theirs = topology_of(checkpoint), topology
    if len(ours.blocks) != len(theirs.blocks):
        raise UserError(
            f"The model file (--cfg) has {len(theirs.blocks)} blocks, but the weights have {len(ours.blocks)}: they "
            "are different networks. Omit --cfg to use the network of the weights."
        )
    for i, (a, b) in enumerate(zip(ours.blocks, theirs.blocks, strict=True)):
        same_sources = ours.absolute_sources()[i] == theirs.absolute_sources()[i]
        if (a.kind, a.repeats, a.args) != (b.kind, b.repeats, b.args) or not same_sources:
            raise UserError(
                f"Block {i} is {_row(b)} in the model file (--cfg), but {_row(a)} in the weights: they are different "
                "networks. Omit --cfg to use the network of the weights."
            )
    if ours.activation != theirs.activation or ours.channels != theirs.channels:
        raise UserError(
            f"The model file (--cfg) has {theirs.activation} and {theirs.channels} image channels, but the weights "
            f"have {ours.activation} and {ours.channels}. Omit --cfg to use the network of the weights."
        )


def _row(block: Block) -> str:
    return f"{block.repeats} x {block.kind}{list(block.args)} of {list(block.sources)}"
