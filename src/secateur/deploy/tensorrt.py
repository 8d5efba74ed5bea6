"""TensorRT: the line that builds an engine from an ONNX file, and the operators that would stop it."""

from __future__ import annotations

from typing import Any

# Operators of the default ONNX domain that TensorRT 10's parser takes, as its documentation lists them, among those
# that detectors are made of.
_OPERATORS = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
    Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample HardSigmoid
    HardSwish Identity If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    Loop MatMul Max MaxPool Mean Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu
    QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape
    Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Size Slice Softmax Softplus SpaceToDepth Split Sqrt
    Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
SUPPORTED = frozenset(_OPERATORS.split())


def build_line(graph: Any, precision: str) -> str:
    """A sentence with the `trtexec` command for an `onnx.ModelProto`; "{file}" stands for its file.

    It says so where the graph has operators that TensorRT's parser does not take.
    """
    foreign = sorted(
        {n.op_type for n in graph.graph.node if n.domain not in ("", "ai.onnx") or n.op_type not in SUPPORTED}
    )
    if foreign:
        return f"TensorRT does not take the operators {', '.join(foreign)} of this file."
    flag = {"fp16": " --fp16", "int8": " --int8 --fp16"}.get(precision, "")
    return f"TensorRT: trtexec --onnx={{file}} --saveEngine={{file}}.engine{flag}"
