"""Bare state dicts: tensors under upstream's names, without the network that they are of."""

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
    """The tensors of a file's content that is a state dict or has one; None where there is none."""
    found = [content, *(content.values() if isinstance(content, Mapping) else ())]
    for state in found:
        if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
            return state
    return None


def read_state(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a bare state dict, in fp32, by the names that ours have; None for any other file.

    What programs put before the names ("module.", "model.model.0.conv.weight") is left out.

    Raises:
        UserError: the file cannot be read, or the tensors are of no network of the family.
    """
    blocks = {name for kind in BLOCKS for name in (kind, *BLOCKS[kind].foreign)}
    state = find_state(read_records(path, blocks, lambda name: fork_kind(name, blocks)))
    if state is None:
        return None
    named = {match[1]: value for name, value in state.items() if (match := _LAYER.match(str(name)))}
    if not named:
        raise UserError(f"{path} holds tensors of another network: none is called like model.0.conv.weight.")
    kept = {name: value for name, value in named.items() if not name.endswith("anchor_grid")}
    try:
        refuse_expanded(kept.values(), path.stat().st_size)
    except UserError as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def network_of(path: Path, tensors: Mapping[str, Tensor], cfg: str | Path) -> Detector:
    """The detector that a model YAML describes, as wide as the tensors are and for as many classes.

    Raises:
        UserError: there is no such YAML, or the tensors are of another network.
    """
    topology = Topology.from_yaml(cfg)
    last, anchors = f"model.{len(topology.blocks) - 1}", len(topology.anchors[0]) // 2
    head = tensors.get(f"{last}.m.0.weight")
    if head is None or head.shape[0] % anchors or head.shape[0] <= 5 * anchors:
        raise UserError(f"{path} and {cfg} do not belong together: there is no head at {last} for {anchors} anchors.")
    nc = head.shape[0] // anchors - 5
    with torch.device("meta"):
        detector = Detector(Topology.from_yaml(cfg, nc=nc), {i: f"class{i}" for i in range(nc)})
    if topology.anchors_pending and f"{last}.anchors" not in tensors:
        raise UserError(
            f"{path} has no anchors and {cfg} asks for computed ones; write the anchors of its training into {cfg}."
        )
    detector.topology = replace(detector.topology, anchors_pending=False)
    try:
        detector.set_tensors({f"{last}.anchors": _anchors(topology, detector), **tensors})
    except UserError as error:
        raise UserError(f"{path} and {cfg} do not belong together: {error}") from error
    return detector


def _anchors(topology: Topology, detector: Detector) -> Tensor:
    """Those of the YAML in units of the strides, for files that leave them out."""
    pixels = torch.tensor(topology.anchors, dtype=torch.float32, device="cpu").view(detector.nl, detector.na, 2)
    return pixels / torch.tensor(detector.strides, device="cpu").view(-1, 1, 1)
