"""ONNX files in ONNX Runtime: export in fp32, fp16 and int8, prediction, timing and profiling."""

from __future__ import annotations

from secateur.deploy.exporters import EXPORTERS, Exporter
from secateur.deploy.formats.onnx.profiling import Looked, read_graph
from secateur.deploy.formats.onnx.runtime import OnnxPredictor
from secateur.deploy.formats.onnx.timing import ProfiledNetwork, layers, version
from secateur.deploy.formats.onnx.writer import check_opset, write
from secateur.deploy.profiling import PROFILERS, Profiler
from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.deploy.timing import STOPWATCHES, Stopwatch
from secateur.pruning.graph import Stored

EXPORTERS.register("onnx")(
    Exporter(
        "ONNX",
        ".onnx",
        ("onnx", "onnxslim", "onnxruntime"),
        "onnx",
        write,
        precisions=("fp32", "fp16", "int8"),
        outputs=("decoded", "raw", "detections"),
        dynamic=True,
        # int8 overhead per channel: scale, zero point and value of the bias, and scale and zero point of the weights.
        stored={"fp32": Stored(4, 4, 4), "fp16": Stored(2, 2, 2), "int8": Stored(1, 17, 4)},
        check=check_opset,
    )
)
RUNTIMES.register(".onnx")(Runtime("ONNX Runtime", OnnxPredictor))
STOPWATCHES.register("onnx")(Stopwatch("ONNX Runtime", "onnx", version, layers, ProfiledNetwork))
PROFILERS.register(".onnx")(Profiler(lambda file, sides: read_graph(file, sides).work, Looked))
