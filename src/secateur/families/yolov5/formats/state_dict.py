"""Bare state dicts: tensors under upstream names, without the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.families.yolov5.blocks import BLOCKS
from secateur.families.yolov5.formats.forks import fork_kind
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.formats.archive import refuse_expanded
from secateur.networks.formats.pickled import read_records

_LAYER = re.compile(r"(?:^|.*?\.)(model\.\d+\..+)$")


def find_state(content: Any) -> Mapping[str, Tensor] | None:
    """The tensors, of any shape, if the content of a file is or contains a state dict; otherwise None."""
    found = [content, *(content.values() if isinstance(content, Mapping) else ())]
    for state in found:
        if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
            return state
    return None


def read_state(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a bare state dict, float32 of any shape, by our names; None for other files.

    Prefixes added by programs ("module.", "model.model.0.conv.weight") are removed.

    Raises:
        UserError: the file cannot be read, or the tensors do not belong to a network of the family.
    """
    blocks = {name for kind in BLOCKS for name in (kind, *BLOCKS[kind].foreign)}
    state = find_state(read_records(path, blocks, lambda name: fork_kind(name, blocks)))
    if state is None:
        return None
    named = {match[1]: value for name, value in state.items() if (match := _LAYER.match(str(name)))}
    if not named:
        raise UserError(f"{path} holds tensors of another network: it has no name like model.0.conv.weight.")
    kept = {name: value for name, value in named.items() if not name.endswith("anchor_grid")}
    try:
        refuse_expanded(kept.values(), path.stat().st_size)
    except UserError as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def network_of(path: Path, tensors: Mapping[str, Tensor], cfg: str | Path) -> Detector:
    """The detector described by a model YAML, with the widths and number of classes of the tensors, of any shape.

    Raises:
        UserError: the YAML does not exist, or the tensors belong to another network.
    """
    topology = Topology.from_yaml(cfg)
    last, anchors = f"model.{len(topology.blocks) - 1}", len(topology.anchors[0]) // 2
    head = tensors.get(f"{last}.m.0.weight")
    if head is None or head.shape[0] % anchors or head.shape[0] <= 5 * anchors:
        raise UserError(f"{path} and {cfg} do not match: there is no head at {last} for {anchors} anchors.")
    nc = head.shape[0] // anchors - 5
    with torch.device("meta"):
        detector = Detector(Topology.from_yaml(cfg, nc=nc), {i: f"class{i}" for i in range(nc)})
    if topology.anchors_pending and f"{last}.anchors" not in tensors:
        raise UserError(
            f"{path} has no anchors, and {cfg} leaves them to be computed. Write the anchors of its training into "
            f"{cfg}."
        )
    detector.topology = replace(detector.topology, anchors_pending=False)
    try:
        detector.set_tensors({f"{last}.anchors": _anchors(topology, detector), **tensors})
    except UserError as error:
        raise UserError(f"{path} and {cfg} do not match: {error}") from error
    return detector


def _anchors(topology: Topology, detector: Detector) -> Tensor:
    """The anchors of the YAML in units of the strides, for files without anchors."""
    pixels = torch.tensor(topology.anchors, dtype=torch.float32, device="cpu").view(detector.nl, detector.na, 2)
    return pixels / torch.tensor(detector.strides, device="cpu").view(-1, 1, 1)
