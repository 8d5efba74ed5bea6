"""Starting points of a training: weights, a description of a network, or both, adapted to the classes of a data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from secateur.errors import UserError
from secateur.families.family import FAMILIES, Family, family_of
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.classes import are_made_up, class_order, knows_classes
from secateur.networks.fresh_head import head_tensors

LOG = logging.getLogger("secateur")


def family_to_start(weights: Checkpoint | None, cfg: str) -> Family:
    """The family of the weights, or of the network that the model file describes.

    Raises:
        UserError: neither is given, or no family supports the model file.
    """
    if weights is not None:
        return family_of(weights)
    if not cfg:
        raise UserError("No network is given. Set --weights best.pt, or --cfg yolov5n to train from scratch.")
    family = next((family for family in FAMILIES.values() if family.describes(cfg)), None)
    if family is None:
        raise UserError(f"No family of networks supports the model file (--cfg) {cfg}.")
    return family


def starting_point(
    weights: str | Checkpoint,
    cfg: str,
    names: Mapping[int, str],
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """The checkpoint that a training for these classes starts from.

    With only weights, the network keeps its shapes (a pruned network stays pruned). If its head has the same classes in
    another order, its outputs are reordered; if it has other classes, it is initialised again. With only a model YAML,
    the network is untrained. With both, the YAML must describe the network of the weights.

    Args:
        weights: a checkpoint, its file, or an official name; may be empty.
        cfg: a model YAML, or a name of the family; may be empty.
        names: class id -> name, of the data set.
        seed: seed of the initial weights.
        options: hyper-parameters by name; the family of an untrained network may use some of them.

    Raises:
        UserError: neither is given, or the YAML and the weights describe different networks.
    """
    checkpoint = weights if isinstance(weights, Checkpoint) else load_checkpoint(weights, cfg) if weights else None
    family = family_to_start(checkpoint, cfg)
    torch.manual_seed(seed)
    if checkpoint is None:
        return family.fresh(cfg, names, options or {})
    if cfg:
        checkpoint = family.configured(checkpoint, cfg, names)
    return for_classes(checkpoint, names)


def keeps_its_head(checkpoint: Checkpoint, names: Mapping[int, str]) -> bool:
    """Whether the head of a detector has these classes, in this or another order."""
    return knows_classes(checkpoint.names, names) or _new_order(checkpoint, names) is not None


def for_classes(checkpoint: Checkpoint, names: Mapping[int, str]) -> Checkpoint:
    """The checkpoint for these classes; changes to the head are logged.

    If the classes are the same in another order, the outputs of the head are reordered; otherwise the head is
    initialised again. Placeholder names are not compared.
    """
    if knows_classes(checkpoint.names, names):
        return checkpoint if are_made_up(names) else replace(checkpoint, names=dict(names))
    order = _new_order(checkpoint, names)
    if order is not None:
        LOG.info("The weights have these classes in another order: the class outputs of the head are reordered")
        return replace(family_of(checkpoint).pick_classes(checkpoint, order), names=dict(names))
    known = "other classes" if checkpoint.nc == len(names) else _count(checkpoint.nc)
    LOG.info("New head for %s (the weights have %s)", _count(len(names)), known)
    # The plan refers to the network with the old head, and the masks refer to the old weights, so both are dropped.
    network = checkpoint.build_for(names)
    head = head_tensors(checkpoint.architecture.with_classes(len(names)))
    held = {name: mask for name, mask in checkpoint.masks.items() if name not in head}
    fresh = Checkpoint.of(network, like=replace(checkpoint, plan=None, masks=held))
    return replace(fresh, names=dict(names))


def _new_order(checkpoint: Checkpoint, names: Mapping[int, str]) -> tuple[int, ...] | None:
    """For every class, its index in the head of the weights; None if the classes differ, or the head is unknown."""
    known = family_of(checkpoint).knows("pick_classes")
    return class_order(checkpoint.names, names) if known else None


def _count(classes: int) -> str:
    return f"{classes} {'class' if classes == 1 else 'classes'}"
