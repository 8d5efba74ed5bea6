"""YOLOv5 checkpoints (v5.0 to v7.0): from the inert records of a `.pt` file to a topology and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.detector.attention import Attention
from secateur.detector.blocks import Bottleneck, Concat, CrossConv
from secateur.detector.model import Detector
from secateur.detector.records import EXPECTED, Record, plain, read_records, tensors_of
from secateur.detector.topology import Block, Topology, parse_topology
from secateur.errors import UserError

_MODELS = ("models.yolo.Model", "models.yolo.DetectionModel")
_INNER_REPEATS = ("C3", "C3x", "C3Ghost", "BottleneckCSP")
_SHORTCUTS = {**dict.fromkeys(_INNER_REPEATS, "m"), "Bottleneck": ""}
_BN_EPS = 1e-3
# What a layer keeps beside its tensors and must agree in.
_COMPARED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("kernel_size", "stride", "padding", "dilation", "groups"),
    nn.ConvTranspose2d: ("kernel_size", "stride", "padding", "dilation", "groups", "output_padding"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.ZeroPad2d: ("padding",),
    nn.Upsample: ("scale_factor", "size", "mode"),
    nn.LeakyReLU: ("negative_slope",),
    Bottleneck: ("add",),
    CrossConv: ("add",),
    Concat: ("d",),
    Attention: ("num_heads",),
}


@dataclass(frozen=True)
class StockCheckpoint:
    """What is kept of a stock file."""

    topology: Topology
    tensors: dict[str, Tensor]
    names: dict[int, str]
    strides: tuple[float, ...]
    training: dict[str, Any]


def read_stock(path: Path) -> StockCheckpoint:
    """Reads a stock `.pt`; EMA weights are preferred, and the layers decide where they disagree with the YAML inside.

    Raises:
        UserError: one sentence that says what the file is and what is expected.
    """
    content = read_records(path)
    model = _find_model(path, content)
    try:
        return _convert(path, model, content if isinstance(content, dict) else {})
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is a damaged YOLOv5 checkpoint ({error!r}); {EXPECTED}.") from error


def _find_model(path: Path, content: Any) -> Record:
    """The model record of a checkpoint, or the sentence that says what was found instead."""
    candidates = [content.get("ema"), content.get("model")] if isinstance(content, dict) else [content]
    for candidate in candidates:
        if isinstance(candidate, Record) and candidate.kind in _MODELS:
            return candidate
    for state in [*candidates, content, *(content.values() if isinstance(content, dict) else ())]:
        if isinstance(state, Mapping) and state and all(isinstance(v, Tensor) for v in state.values()):
            some = ", ".join(str(k) for k in list(state)[:2])
            raise UserError(
                f"{path} holds a bare state dict ({len(state)} tensors: {some}, ...) without the network; {EXPECTED}."
            )
    for candidate in candidates:
        if isinstance(candidate, Record):
            raise UserError(f"{path} holds a {candidate.kind} and no detector; {EXPECTED}.")
    what = (
        f"a dict with the keys {', '.join(map(str, list(content)[:5]))}"
        if isinstance(content, dict)
        else "something else"
    )
    raise UserError(f"{path} holds {what} and no detector; {EXPECTED}.")


def _convert(path: Path, model: Record, content: Mapping[str, Any]) -> StockCheckpoint:
    layers = list(model.modules()["model"].modules().values())
    head = layers[-1]
    if head.kind != "models.yolo.Detect":
        raise UserError(f"its last layer is a {head.kind or 'foreign layer'}, not Detect; {EXPECTED}.")
    tensors = {k: v for k, v in tensors_of(model) if not k.endswith("anchor_grid")}
    strides = tuple(float(s) for s in head.get("stride").flatten())
    topology = _topology(model, layers, tensors, strides)
    _absorb_eps(model, tensors)

    with torch.device("meta"):
        detector = Detector(topology)
    detector.set_tensors(tensors)
    if detector.strides != strides:
        raise UserError(f"its strides {strides} are not those of its layers, {detector.strides}; {EXPECTED}.")
    for name, module in detector.named_modules():
        record = _at(model, name)
        if record is not None:
            _compare(name, module, record)
    training = {
        "source": "yolov5",
        "file": path.name,
        "epoch": plain(content.get("epoch")),
        "date": plain(content.get("date")),
        "hyp": plain(model.get("hyp")) or {},
    }
    return StockCheckpoint(topology, tensors, _names(model.get("names"), topology.nc), strides, training)


def _topology(
    model: Record, layers: list[Record], tensors: Mapping[str, Tensor], strides: tuple[float, ...]
) -> Topology:
    """The topology of the YAML inside, corrected by what the layers say: classes, anchors, repeats, shortcuts."""
    config = model.get("yaml")
    if not isinstance(config, dict):
        raise UserError(f"it does not say of which blocks it is made; {EXPECTED}.")
    anchors = tensors[f"model.{len(layers) - 1}.anchors"].float()
    pixels = (anchors * torch.tensor(strides).view(-1, 1, 1)).flatten(1).tolist()
    topology = parse_topology({**config, "anchors": pixels}, "its model.yaml", nc=int(layers[-1].get("nc")))
    if len(topology.blocks) != len(layers):
        raise UserError(f"its model.yaml has {len(topology.blocks)} blocks but it has {len(layers)} layers.")
    blocks = tuple(_corrected(i, b, r) for i, (b, r) in enumerate(zip(topology.blocks, layers, strict=True)))
    return replace(topology, blocks=blocks, activation=_activation(layers) or topology.activation)


def _corrected(i: int, block: Block, record: Record) -> Block:
    """A block whose repeats, shortcut and inner activation are those of the layer in the file."""
    kind = record.kind.rpartition(".")[2]
    chained = kind == "Sequential"
    if chained:
        kind = record.modules()["0"].kind.rpartition(".")[2]
    if kind != block.kind.removeprefix("nn."):
        raise UserError(f"its layer {i} is a {kind} but its model.yaml says {block.kind}.")
    inner = record.get("m")
    if chained:
        block = replace(block, repeats=len(record.modules()))
    elif kind in _INNER_REPEATS and isinstance(inner, Record) and inner.modules():
        block = replace(block, repeats=len(inner.modules()))
    if kind in _SHORTCUTS:
        holder = inner if _SHORTCUTS[kind] else record
        parts = holder.modules().values() if _SHORTCUTS[kind] or chained else [holder]
        adds = {part.get("add") for part in parts if isinstance(part.get("add"), bool)}
        if len(adds) == 1:
            block = replace(block, args=_with_argument(block.args, 1, adds.pop(), (True,)))
    if kind == "BottleneckCSP":
        block = replace(block, args=_with_argument(block.args, 4, _activation_name(record.get("act")), (True, 1, 0.5)))
    return block


def _with_argument(args: tuple[Any, ...], place: int, value: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with one set, those before it filled with `defaults`, and unchanged where it has that value already."""
    if len(args) > place:
        same = bool(args[place]) == value if isinstance(value, bool) else args[place] == value
        return args if same else (*args[:place], value, *args[place + 1 :])
    default = {1: True, 4: "SiLU"}[place]
    return args if value == default else (*args, *defaults[len(args) - 1 : place - 1], value)


def _activation(layers: list[Record]) -> str | None:
    """The activation of the first convolution block."""
    for layer in layers:
        block = layer.get("conv") if layer.kind.endswith(".Focus") else layer
        if isinstance(block, Record) and block.kind.endswith(".Conv"):
            return _activation_name(block.get("act"))
    return None


def _activation_name(record: Any) -> str:
    """Canonical name of an activation record."""
    if not isinstance(record, Record):
        return "SiLU"
    name = record.kind.rpartition(".")[2]
    value = {"LeakyReLU": record.get("negative_slope"), "ELU": record.get("alpha"), "CELU": record.get("alpha")}.get(
        name
    )
    return name if value is None else f"{name}({value:g})"


def _absorb_eps(model: Record, tensors: dict[str, Tensor]) -> None:
    """Our BatchNorms use eps 1e-3; another eps in the file moves into the running variance, for the same sum."""
    for name in [k.removesuffix(".running_var") for k in tensors if k.endswith(".running_var")]:
        record = _at(model, name)
        eps = record.get("eps", _BN_EPS) if record is not None else _BN_EPS
        if abs(eps - _BN_EPS) > 1e-9:
            tensors[f"{name}.running_var"] = tensors[f"{name}.running_var"].float() + (eps - _BN_EPS)


def _at(record: Record, name: str) -> Record | None:
    """The record of a submodule by its dotted name."""
    for part in filter(None, name.split(".")):
        child = record.modules().get(part)
        if child is None:
            return None
        record = child
    return record


def _pair(value: Any) -> Any:
    """3 and (3, 3) alike."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _compare(name: str, module: nn.Module, record: Record) -> None:
    """Refuses a layer that does not compute what the file's layer computed."""
    keys = next((keys for kind, keys in _COMPARED.items() if isinstance(module, kind)), ())
    for key in keys:
        ours, theirs = getattr(module, key), record.get(key)
        if theirs is not None and _pair(ours) != _pair(theirs):
            raise UserError(f"its layer {name} has {key} {theirs}, but its model.yaml gives {ours}.")
    kind = record.kind.rpartition(".")[2]
    if record.kind.startswith("torch.nn.modules.activation.") and kind not in (
        type(module).__name__,
        "MultiheadAttention",
    ):
        raise UserError(f"its layer {name} is {kind}, but the other layers use {type(module).__name__}.")


def _names(names: Any, nc: int) -> dict[int, str]:
    """Class names from a list or a dict; missing ones are made up."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
    given = {int(k): str(v) for k, v in pairs}
    return {i: given.get(i, f"class{i}") for i in range(nc)}
