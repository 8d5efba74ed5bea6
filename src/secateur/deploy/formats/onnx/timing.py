"""ONNX Runtime: times every node by its profile, in the blocked layout that complete networks use.

Layers are timed as branches of one small model. In a model with a single convolution, reordering the input and output
would dominate; the profile separates these nodes from the convolution.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from secateur.deploy.formats.onnx.writer import write
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.deploy.timing import low, repeat
from secateur.pruning.latency import Pair, Signature
from secateur.terminal import without_telemetry

_OPSET = 18
_TYPES = {"tensor(float16)": np.float16}
_FEED = 16  # channels of the source from which inputs of concats, sums and poolings are made
_OPERATORS = {
    "elu": "Elu", "hardsigmoid": "HardSigmoid", "hardswish": "HardSwish", "leaky_relu": "LeakyRelu", "mish": "Mish",
    "relu": "Relu", "selu": "Selu", "sigmoid": "Sigmoid", "softplus": "Softplus", "tanh": "Tanh",
}  # fmt: skip
# relu6 and hardtanh are exported as Clip, which costs as much as Relu; gelu is left to the fit.
_OPERATORS |= {"relu6": "Relu", "hardtanh": "Relu"}


class Profiled:
    """A model that is timed node by node. Every turn is a separate session, because the profile is written when it
    ends.

    Attributes:
        parts: substrings of node names; the nodes of each part are summed.
        times: milliseconds of all timed runs of every node, by name.
        between: milliseconds of all timed runs outside the nodes.
    """

    def __init__(
        self,
        model: Path | bytes,
        threads: int,
        parts: Sequence[str] = ("",),
        image: tuple[int, ...] | None = None,
    ) -> None:
        """Takes a file, or a model in memory. The input shape is the one that the model states, or that of `image`."""
        self._model, self._threads = str(model) if isinstance(model, Path) else model, threads
        self.parts, self._image = parts, image
        self.times: dict[str, list[float]] = defaultdict(list)
        self.between: list[float] = []

    def turn(self) -> None:
        """Runs a few more calls; the first two are warm-up, which allocates memory and starts threads."""
        with tempfile.TemporaryDirectory() as folder:
            session = _session(self._model, self._threads, Path(folder))
            feed = {
                entry.name: np.full(self._image or entry.shape, 0.5, _TYPES.get(entry.type, np.float32))
                for entry in session.get_inputs()
            }
            repeat(lambda: session.run(None, feed), least=5, most=20, seconds=0.1)
            events = json.loads(Path(session.end_profiling()).read_text())
        found: dict[str, list[float]] = defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                found[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1000)
        for name, times in found.items():
            self.times[name] += times[2:]
        runs = [event["dur"] / 1000 for event in events if event["name"] == "model_run"]
        nodes = np.array([times for times in found.values() if len(times) == len(runs)]).sum(axis=0)
        self.between += list(np.maximum(runs - nodes, 0)[2:])

    def milliseconds(self) -> list[float]:
        """Milliseconds per run of each part: the sum of its nodes."""
        nodes = {name: low(times) for name, times in self.times.items()}
        return [sum(ms for name, ms in nodes.items() if part in name) for part in self.parts]


class ProfiledNetwork(Profiled):
    """An exported network."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory()  # removed together with this object
        file = Path(self._folder.name) / "network.onnx"
        write(Source.of(network, (shape[2], shape[3]), channels=shape[1]), file, ExportSettings())
        super().__init__(file, threads)


def _session(model: str | bytes, threads: int, folder: Path) -> Any:
    """A session that writes its profile into a folder."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def layers(signature: Signature, reads: int, emits: Sequence[int], threads: int) -> Profiled:
    """Layers of one signature with the same input width; see `Stopwatch`."""
    parts = [f"timed{number}/" for number in range(len(emits))]
    return Profiled(_model(signature, reads, emits), threads, parts)


def _model(signature: Signature, reads: int, emits: Sequence[int]) -> bytes:
    """A model with one branch per width. Nodes and values to be timed are named "timed<number>/..."."""
    onnx = importlib.import_module("onnx")
    branches = _Branches(onnx, signature.map)
    for number, width in enumerate(emits):
        if signature.kind in ("conv", "transposed"):
            branches.convolution(signature, number, reads, width)
        else:
            branches.other(signature, number, width)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            branches.nodes, "layers", list(branches.inputs.values()), branches.outputs, branches.weights
        ),
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=8,
    )
    data: bytes = model.SerializeToString()
    return data


class _Branches:
    """The nodes of a model under construction."""

    def __init__(self, onnx: Any, size: Pair) -> None:
        self.onnx, self.size = onnx, size
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.outputs: list[Any] = []
        self.inputs: dict[int, Any] = {}

    def convolution(self, signature: Signature, number: int, reads: int, width: int) -> None:
        """A convolution with its activation."""
        inside, outside = signature.per_group
        groups = width // outside if outside else 1
        reads = inside * groups if outside else reads
        shape = (width, reads // groups) if signature.kind == "conv" else (reads, width // groups)
        operator = "Conv" if signature.kind == "conv" else "ConvTranspose"
        value = self._convolve(
            operator, f"timed{number}/conv", self._input(reads), (*shape, *signature.kernel), width,
            strides=signature.stride, pads=signature.padding * 2, dilations=signature.dilation, group=groups,
        )  # fmt: skip
        self._output(self._activate(signature.activation, value, f"timed{number}"))

    def other(self, signature: Signature, number: int, width: int) -> None:
        """A concat or sum of two feature maps, a pooling or an upsampling. Its input comes from a convolution, so that
        it is in the layout of convolution outputs.
        """
        name = f"timed{number}/{signature.kind}"
        if signature.kind in ("concat", "add"):
            parts = (width // 2, width - width // 2) if signature.kind == "concat" and width > 1 else (width, width)
            sources = [self._source(f"source{number}-{part}", count) for part, count in enumerate(parts)]
            concat = signature.kind == "concat"
            self._node("Concat" if concat else "Add", sources, name, **({"axis": 1} if concat else {}))
        elif signature.kind == "pool":
            sources = [self._source(f"source{number}", width)]
            self._node(
                "MaxPool", sources, name,
                kernel_shape=signature.kernel, strides=signature.stride, pads=signature.padding * 2,
            )  # fmt: skip
        else:
            scales = np.array([1, 1, *signature.stride], np.float32)
            self.weights.append(self.onnx.numpy_helper.from_array(scales, f"scales{number}"))
            self._node(
                "Resize", [self._source(f"source{number}", width), "", f"scales{number}"], name,
                mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
            )  # fmt: skip
        self._output(name)

    def _source(self, name: str, width: int) -> str:
        # The activation prevents the runtime from fusing the node with a following sum.
        value = self._convolve("Conv", f"{name}/conv", self._input(_FEED), (width, _FEED, 1, 1), width)
        return self._node("Relu", [value], f"{name}/relu")

    def _convolve(
        self, operator: str, name: str, source: str, shape: Sequence[int], width: int, **attributes: Any
    ) -> str:
        for suffix, size in (("weight", tuple(shape)), ("bias", (width,))):
            values = np.full(size, 0.01, np.float32)
            self.weights.append(self.onnx.numpy_helper.from_array(values, f"{name}.{suffix}"))
        return self._node(operator, [source, f"{name}.weight", f"{name}.bias"], name, **attributes)

    def _activate(self, activation: str, value: str, name: str) -> str:
        if activation == "silu":
            gate = self._node("Sigmoid", [value], f"{name}/sigmoid")
            return self._node("Mul", [value, gate], f"{name}/mul")
        operator = _OPERATORS.get(activation)
        return self._node(operator, [value], f"{name}/act") if operator else value

    def _input(self, channels: int) -> str:
        if channels not in self.inputs:
            helper = self.onnx.helper
            shape = [1, channels, *self.size]
            self.inputs[channels] = helper.make_tensor_value_info(f"x{channels}", self.onnx.TensorProto.FLOAT, shape)
        return f"x{channels}"

    def _output(self, value: str) -> None:
        self.outputs.append(self.onnx.helper.make_tensor_value_info(value, self.onnx.TensorProto.FLOAT, None))

    def _node(self, operator: str, sources: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, sources, [name], name=name, **attributes))
        return name


def version() -> str:
    importlib.import_module("onnx")
    importlib.import_module("onnxslim")
    return str(_runtime().__version__)


def _runtime() -> Any:
    with without_telemetry():
        return importlib.import_module("onnxruntime")
