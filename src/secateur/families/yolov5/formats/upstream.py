"""YOLOv5 checkpoints (v5.0 to v7.0): converts the inert records of a `.pt` file to a topology and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.errors import UserError, shown, told
from secateur.families.yolov5.activations import recorded_activation
from secateur.families.yolov5.blocks import BLOCKS
from secateur.families.yolov5.formats.agreement import record_at, refuse_other_attributes, refuse_other_layers
from secateur.families.yolov5.formats.forks import fork_kind, recognise, upstream_rows
from secateur.families.yolov5.formats.state_dict import find_state
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import MAX_ANCHORS, Block, Topology, parse_topology, refuse_impossible
from secateur.limits import MAX_LEVELS
from secateur.networks.formats.archive import refuse_expanded
from secateur.networks.formats.pickled import read_records
from secateur.networks.formats.records import (
    EXPECTED,
    Record,
    plain_data,
    refuse_endless,
    refuse_repetition,
    tensors_of,
)

_MODELS = ("models.yolo.Model", "models.yolo.DetectionModel")
_OTHER_TASKS = {"models.yolo.SegmentationModel": "segmentation", "models.yolo.ClassificationModel": "classification"}
_BN_EPS = 1e-3


@dataclass(frozen=True)
class UpstreamCheckpoint:
    """Content of an upstream file that is kept."""

    topology: Topology
    tensors: dict[str, Tensor]
    names: dict[int, str]
    strides: tuple[float, ...]
    training: dict[str, Any]
    image_size: int | None


def read_upstream(path: Path) -> UpstreamCheckpoint:
    """Reads an upstream `.pt`; EMA weights are preferred, and the layers take precedence over the stored YAML.

    Raises:
        UserError: the file cannot be read; the message states what it is and what is expected.
    """
    blocks = {name for kind in BLOCKS for name in (kind, *BLOCKS[kind].foreign)}
    content = read_records(path, blocks, lambda name: fork_kind(name, blocks))
    model = _find_model(path, content)
    try:
        refuse_endless(model)
        return _convert(path, model, content if isinstance(content, dict) else {}, recognise(model, blocks))
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is a damaged YOLOv5 checkpoint ({told(repr(error))}). {EXPECTED}.") from error


def _find_model(path: Path, content: Any) -> Record:
    """The model record of a checkpoint, or an error that states what was found instead."""
    candidates = [content.get("ema"), content.get("model")] if isinstance(content, dict) else [content]
    for candidate in candidates:
        if isinstance(candidate, Record) and candidate.kind in _MODELS:
            return candidate
    if (state := find_state(content)) is not None:
        some = ", ".join(told(key, 40) for key in list(state)[:2])
        raise UserError(
            f"{path} holds a bare state dict ({len(state)} tensors: {some}, ...) without the network. {EXPECTED}. Or "
            "convert it with its YAML: secateur export --cfg yolov5n.yaml --format yolov5."
        )
    for candidate in candidates:
        if isinstance(candidate, Record) and candidate.kind in _OTHER_TASKS:
            task = _OTHER_TASKS[candidate.kind]
            raise UserError(
                f"{path} is a YOLOv5 checkpoint for {task}. Only detectors, which end with a Detect layer, can be "
                "pruned."
            )
        if isinstance(candidate, Record):
            raise UserError(f"{path} holds a {told(candidate.kind, 60)}, not a detector. {EXPECTED}.")
    what = (
        f"a dict with the keys {', '.join(told(key, 20) for key in list(content)[:5])}"
        if isinstance(content, dict)
        else "something else"
    )
    raise UserError(f"{path} holds {what}, not a detector. {EXPECTED}.")


def _convert(path: Path, model: Record, content: Mapping[str, Any], fitted: Mapping[str, str]) -> UpstreamCheckpoint:
    layers = list(model.modules()["model"].modules().values())
    head = layers[-1]
    if head.kind != "models.yolo.Detect":
        raise UserError(f"its last layer is a {told(head.kind, 60) or 'foreign layer'}, not Detect. {EXPECTED}.")
    tensors = {k: v for k, v in tensors_of(model) if not k.endswith("anchor_grid")}
    refuse_expanded(tensors.values(), path.stat().st_size)
    strides = _strides(head)
    topology = _topology(model, layers, tensors, strides, fitted)
    _absorb_eps(model, tensors)

    with torch.device("meta"):
        detector = Detector(topology)
    refuse_other_attributes(model, detector, tensors_are_set=False)
    detector.set_tensors(tensors)
    if detector.strides != strides:
        raise UserError(f"its strides {strides} differ from those of its layers, {detector.strides}. {EXPECTED}.")
    refuse_other_attributes(model, detector, tensors_are_set=True)
    refuse_other_layers(model, detector)
    training = {
        "source": "yolov5",
        "file": path.name,
        **({"license": told(content["license"], 100)} if isinstance(content.get("license"), str) else {}),
        "epoch": plain_data(content.get("epoch")),
        "epochs": _option(content.get("opt"), "epochs"),
        "date": plain_data(content.get("date")),
        **({"single_cls": True} if _switched_on(content.get("opt"), "single_cls") else {}),
        "hyp": plain_data(model.get("hyp")) or {},
    }
    names = _names(model.get("names"), topology.nc)
    return UpstreamCheckpoint(topology, tensors, names, strides, training, _option(content.get("opt"), "imgsz"))


def _strides(head: Record) -> tuple[float, ...]:
    """Pixels per cell of each level."""
    strides = head.get("stride")
    if not isinstance(strides, Tensor) or not 1 <= strides.numel() <= MAX_LEVELS:
        raise UserError(f"its Detect layer has no strides. {EXPECTED}.")
    return tuple(float(stride) for stride in strides.flatten())


def _option(options: Any, name: str) -> int | None:
    """A positive number from the training options (image size, epochs); None if it is missing."""
    value = options.get(name) if isinstance(options, dict | Record) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _switched_on(options: Any, name: str) -> bool:
    """Whether a training option is enabled."""
    return isinstance(options, dict | Record) and options.get(name) is True


def _topology(
    model: Record,
    layers: list[Record],
    tensors: Mapping[str, Tensor],
    strides: tuple[float, ...],
    fitted: Mapping[str, str],
) -> Topology:
    """The topology of the stored YAML, corrected by the attributes of the layers."""
    config = model.get("yaml")
    if not isinstance(config, dict):
        raise UserError(f"it has no list of blocks. {EXPECTED}.")
    refuse_repetition(config)
    anchors = tensors[f"model.{len(layers) - 1}.anchors"].float()
    if anchors.ndim != 3 or len(anchors) != len(strides) or not 1 <= anchors.shape[1] <= MAX_ANCHORS:
        raise UserError(
            f"its Detect layer has anchors with the shape {list(anchors.shape)}, but {len(strides)} strides."
        )
    pixels = (anchors * torch.tensor(strides).view(-1, 1, 1)).flatten(1).tolist()
    topology = parse_topology(
        {**upstream_rows(config, fitted), "anchors": pixels}, "its model.yaml", nc=layers[-1].get("nc")
    )
    if len(topology.blocks) != len(layers):
        raise UserError(f"its model.yaml has {len(topology.blocks)} blocks, but it has {len(layers)} layers.")
    blocks = tuple(_corrected(i, b, r) for i, (b, r) in enumerate(zip(topology.blocks, layers, strict=True)))
    topology = replace(topology, blocks=blocks, activation=_activation(layers) or topology.activation)
    refuse_impossible(topology, "its layers")
    return topology


def _corrected(i: int, block: Block, record: Record) -> Block:
    """A block with the sources, repeats and arguments of the layer in the file."""
    kind = record.kind.rpartition(".")[2]
    chained = kind == "Sequential"
    if chained:
        kind = record.modules()["0"].kind.rpartition(".")[2]
    if kind != block.kind.removeprefix("nn."):
        raise UserError(f"its layer {i} is a {told(kind, 60)} but {block.kind} in its model.yaml.")
    block = replace(block, sources=_sources(i, block, record.get("f")))
    known = BLOCKS[block.kind]
    inner = record.get(known.inner) if known.inner else None
    chain = record if chained else inner
    members = list(chain.modules().values()) if isinstance(chain, Record) else []
    if members:
        block = replace(block, repeats=len(members))
    elif not known.inner:
        members = [record]
    return block if known.read is None else replace(block, args=known.read(block.args, record, members))


def _sources(i: int, block: Block, recorded: Any) -> tuple[int, ...]:
    """The source layers recorded in a layer; in the notation of the YAML if they are the same."""
    if recorded is None:
        return block.sources
    sources = tuple(recorded) if isinstance(recorded, list | tuple) else (recorded,)
    if not sources or not all(isinstance(source, int) and not isinstance(source, bool) for source in sources):
        raise UserError(f"its layer {i} has the sources {shown(recorded)}, but they must be layer numbers.")
    absolute = [[s if s >= 0 else i + s for s in row] for row in (sources, block.sources)]
    return block.sources if absolute[0] == absolute[1] else sources


def _activation(layers: list[Record]) -> str | None:
    """The activation of the first convolution block."""
    for layer in layers:
        block = layer.get("conv") if layer.kind.endswith(".Focus") else layer
        if isinstance(block, Record) and block.kind.endswith(".Conv"):
            return recorded_activation(block.get("act"))
    return None


def _absorb_eps(model: Record, tensors: dict[str, Tensor]) -> None:
    """Our batch norms use eps 1e-3; a different eps is absorbed by the running variance, so that the sum is the
    same."""
    for name in [k.removesuffix(".running_var") for k in tensors if k.endswith(".running_var")]:
        record = record_at(model, name)
        eps = record.get("eps", _BN_EPS) if record is not None else _BN_EPS
        if abs(eps - _BN_EPS) > 1e-9:
            tensors[f"{name}.running_var"] = tensors[f"{name}.running_var"].float() + (eps - _BN_EPS)


def _names(names: Any, nc: int) -> dict[int, str]:
    """Class names from a list or a dict; missing ones get placeholders."""
    names = plain_data(names)
    pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
    given = {int(k): str(v) for k, v in pairs}
    return {i: given.get(i, f"class{i}") for i in range(nc)}
