"""ONNX Runtime profiles: the profile gives the time of every node, the file gives the work of each node."""

from __future__ import annotations

import importlib
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.deploy.formats.onnx.timing import Profiled
from secateur.deploy.profiling import LayerTime, Sides
from secateur.deploy.timing import low
from secateur.evaluation.cost import LayerWork, kind_of

_ACTIVATIONS = {
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul", "PRelu", "Relu", "Selu", "Sigmoid",
    "Softplus", "Tanh",
}  # fmt: skip
# Includes Mul because SiLU is x times its sigmoid. An operation belongs to a layer if all of its inputs come from that
# layer.
_INSIDE = re.compile(r"^(?:.*?\.)?(?:network|detector)\.")
_DECODER = "decoder"
# In our own exports, names after the first prefix are those of the checkpoint; nodes under the second decode outputs.


@dataclass
class Graph:
    """The layers in a file.

    Attributes:
        work: work of the convolutions and linear layers, by name, in order.
        owners: the layer of each node that is a layer or its activation, by node name and by output name.
        kinds: operation of every node, by the same names.
    """

    work: dict[str, LayerWork] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


class Looked(Profiled):
    """A file that is timed layer by layer."""

    def __init__(self, file: Path, shape: tuple[int, ...], threads: int) -> None:
        super().__init__(file, threads, image=shape)
        self.graph = read_graph(file, (shape[2], shape[3]))

    def layers(self) -> list[LayerTime]:
        """See `Profiling`. The last entry is the time that the session spends between its nodes."""
        nodes = {name: low(times) for name, times in self.times.items()}
        found: dict[tuple[str, str], float] = {}
        for name, ms in nodes.items():
            place = self._place(name)
            found[place] = found.get(place, 0.0) + ms
        layers = [
            LayerTime(name, kind, ms, self.graph.work[name] if self._is_layer(name, kind) else None)
            for (name, kind), ms in found.items()
        ]
        return [*layers, LayerTime("(between the layers)", "call", low(self.between))]

    def milliseconds(self) -> list[float]:
        """Milliseconds per call."""
        return [sum(layer.ms for layer in self.layers())]

    def _is_layer(self, name: str, kind: str) -> bool:
        return name in self.graph.work and self.graph.work[name].kind == kind

    def _place(self, event: str) -> tuple[str, str]:
        """The layer of a node in the optimised graph, or its location, and its kind.

        ONNX Runtime names optimised nodes after an original node or its output. Nodes that it adds for its layout of
        feature maps have other names.
        """
        if event.startswith("Reorder"):
            return "(layout of maps)", "reorder"
        node = known_part(event, self.graph.kinds)
        if node in self.graph.owners:
            owner = self.graph.owners[node]
            return owner, self.graph.work[owner].kind
        kind = self.graph.kinds.get(node, event).lower()
        path = node.strip("/").rpartition("/")[0].replace("/", ".")
        if path in ("", _DECODER):
            return "(outputs)", "decode"
        return _INSIDE.sub("", path), kind


def known_part(event: str, names: Container[str]) -> str:
    """The longest prefix of the event's name, cut at separators, that is one of the names; "" if there is none.

    >>> known_part("/act/Mul_1/QuickGeluFusion/", {"/act/Mul", "/act/Mul_1"})
    '/act/Mul_1'
    >>> known_part("/conv/Conv_output_0_nchwc", {"/conv/Conv", "/conv/Conv_output_0"})
    '/conv/Conv_output_0'
    """
    name = event.removesuffix("_nchwc")
    while name and name not in names:
        name = name.rpartition("/")[0]
    return name


def read_graph(file: Path, sides: Sides) -> Graph:
    """Reads a file for images of a height and width; empty if the package onnx is not installed."""
    try:
        onnx = importlib.import_module("onnx")
    except ImportError:
        return Graph()
    model = onnx.load(str(file), load_external_data=False)
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, None, *sides), strict=False):
        if size is not None and dimension.dim_value == 0:
            dimension.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        entry.name: [side.dim_value for side in entry.type.tensor_type.shape.dim]
        for entry in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    weights = {entry.name: list(entry.dims) for entry in inferred.initializer}
    for node in inferred.node:  # for int8 files
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    constants = {*weights, *(node.output[0] for node in inferred.node if node.op_type == "Constant"), ""}
    graph = Graph()
    for node in inferred.node:
        graph.kinds |= dict.fromkeys((node.name, node.output[0]), node.op_type)
        name = _layer(node, shapes, weights, graph)
        if not name and node.op_type in _ACTIVATIONS:
            sources = {graph.owners.get(value, "") for value in node.input if value not in constants}
            name = sources.pop() if len(sources) == 1 else ""
        if name:
            graph.owners |= dict.fromkeys((node.name, node.output[0]), name)
    return graph


def _layer(node: Any, shapes: dict[str, list[int]], weights: dict[str, list[int]], graph: Graph) -> str:
    """Records the work of a node that is a layer and returns its name; "" for all other nodes."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.input[1] not in weights:
        return ""
    x, y, weight = shapes.get(node.input[0]), shapes.get(node.output[0]), weights[node.input[1]]
    if not x or not y or 0 in x[1:] or 0 in y[1:]:
        return ""
    whole = node.input[1].removesuffix("_DequantizeLinear_Output")
    plain = whole.removesuffix(".weight")
    scope = node.name.strip("/").rpartition("/")[0].replace("/", ".")
    name = _INSIDE.sub("", plain) if plain != whole else scope or node.name
    work = _work(node, x, y, weight)
    graph.work[name] = graph.work[name].again(work) if name in graph.work else work
    return name


def _work(node: Any, x: list[int], y: list[int], weight: list[int]) -> LayerWork:
    count, read, written = _product(weight), _product(x[1:]), _product(y[1:])
    if node.op_type in ("Gemm", "MatMul"):
        transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
        reads, emits = (weight[1], weight[0]) if transposed else (weight[0], weight[1])
        return LayerWork("linear", reads, emits, (1, 1), 2 * written * reads, read + written, count)
    lists = {entry.name: list(entry.ints) for entry in node.attribute}
    grouped = any(entry.name == "group" and entry.i > 1 for entry in node.attribute)
    transposed, stride = node.op_type == "ConvTranspose", lists.get("strides", [1])
    kind = kind_of(weight[2:], stride, grouped=grouped, transposed=transposed)
    macs = (read if transposed else written) * _product(weight[1:])
    height, width = (*y[2:], 1)[:2]
    return LayerWork(kind, x[1], y[1], (height, width), 2 * macs, read + written, count)


def _product(sides: Iterable[int]) -> int:
    result = 1
    for side in sides:
        result *= side
    return result
