"""ONNX export: prepared `images` float32 [B, C, H, W] -> `output0`, `output1`, ... float32, checked in ONNX Runtime.

The metadata contains the class names and the largest stride with the keys of YOLOv5's exports.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.deploy.exporters import Written
from secateur.deploy.formats.onnx.int8 import quantised
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source, cannot
from secateur.errors import UserError
from secateur.families.outputs import tensors_of
from secateur.terminal import counting, silenced

INPUT = "images"
OLDEST_OPSET = 9  # older opsets lack the upsampling that detectors need
# Operators of the default ONNX domain that TensorRT 10's parser supports according to its documentation, limited to
# those that occur in detectors.
_NAMES = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
    Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample HardSigmoid
    HardSwish Identity If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    Loop MatMul Max MaxPool Mean Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu
    QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape
    Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Size Slice Softmax Softplus SpaceToDepth Split Sqrt
    Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
_TENSORRT = frozenset(_NAMES.split())


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`.

    Raises:
        UserError: the network cannot be exported.
    """
    onnx = importlib.import_module("onnx")
    network, example = source.network(settings).eval(), source.example(settings)
    _trace(network, example, path, settings, _axes(network, example, settings))
    graph = onnx.load(str(path))
    version = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if version != settings.opset:
        raise UserError(
            f"PyTorch cannot export this network with ONNX opset {settings.opset}; it produces opset "
            f"{version}. Use --opset {version}."
        )
    if settings.simplify:
        with silenced():
            graph = importlib.import_module("onnxslim").slim(graph)
    if settings.precision == "int8":
        with tempfile.TemporaryDirectory() as folder:
            images, count = source.calibration(settings.batch_size), -(-len(source.images) // settings.batch_size)
            with counting(images, "calibrating int8", count) as moving:
                graph = quantised(graph, moving, Path(folder), settings.opset)
    onnx.helper.set_model_props(graph, source.metadata(settings).to_text())
    onnx.save(graph, str(path))
    return Written({"opset": version, "nodes": len(graph.graph.node)}, (_build_line(graph, settings.precision),))


def check_opset(settings: ExportSettings) -> None:
    """Rejects opsets that are too old, or that the installed package does not support.

    Raises:
        UserError: the opset is not available.
    """
    newest = importlib.import_module("onnx").defs.onnx_opset_version()
    if not OLDEST_OPSET <= settings.opset <= newest:
        raise UserError(
            f"ONNX opset {settings.opset} is not available. Choose one from {OLDEST_OPSET} to {newest} (17 "
            "suits most runtimes)."
        )


def _axes(network: nn.Module, example: Tensor, settings: ExportSettings) -> dict[str, dict[int, str]]:
    """The dynamic dimensions of the input and of each output, by name. Those of the outputs are found by running larger
    images.

    Raises:
        UserError: the network does not run, or returns no tensor.
    """
    batch = {0: "batch"} if settings.dynamic else {}
    axes = {INPUT: batch | ({2: "height", 3: "width"} if settings.any_size else {})}
    with silenced(), torch.no_grad():
        try:
            shapes = [tensor.shape for tensor in tensors_of(network(example))]
            larger = torch.cat((torch.cat((example, example), 2),) * 2, 3) if settings.any_size else example
            others = [tensor.shape for tensor in tensors_of(network(larger))] if settings.any_size else shapes
        except Exception as error:  # a network can raise any exception
            raise cannot("ONNX", error) from error
    if not shapes:
        raise UserError("This network cannot be exported to ONNX: it returns no tensor.")
    for number, (shape, other) in enumerate(zip(shapes, others, strict=True)):
        moved = {side: f"side{side}" for side, (old, new) in enumerate(zip(shape, other, strict=True)) if old != new}
        axes[f"output{number}"] = batch | moved
    return axes


def _trace(
    network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, axes: dict[str, dict[int, str]]
) -> None:
    """Traces with the TorchScript exporter, and falls back to torch.export."""
    outputs = [name for name in axes if name != INPUT]
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": outputs, "opset_version": settings.opset}
    with silenced(), torch.no_grad():
        try:
            # Measured: the same graph as from the newer exporter, in a third of the time and without onnxscript.
            torch.onnx.export(network, (example,), str(path), dynamo=False, dynamic_axes=axes, **names)
        except Exception as first:  # the exporter raises exceptions of many types
            shapes = ({0: torch.export.Dim("batch", min=1)},) if settings.dynamic else None
            try:
                if settings.any_size:
                    raise
                torch.onnx.export(
                    network, (example,), str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, **names
                )
            except Exception:
                raise cannot("ONNX", first) from first


def _build_line(graph: Any, precision: str) -> str:
    """A message with the `trtexec` command for an `onnx.ModelProto`; "{file}" is replaced by its path.

    Names the operators of the graph that TensorRT's parser does not support, if there are any.
    """
    foreign = sorted(
        {n.op_type for n in graph.graph.node if n.domain not in ("", "ai.onnx") or n.op_type not in _TENSORRT}
    )
    if foreign:
        return f"TensorRT does not support the operators {', '.join(foreign)} of this file."
    if precision == "int8":
        return (
            "TensorRT does not support uint8 activations: build its engine from the fp32 file, with --fp16 or "
            "--int8 there."
        )
    flag = " --fp16" if precision == "fp16" else ""
    return f"TensorRT: trtexec --onnx={{file}} --saveEngine={{file}}.engine{flag}"
