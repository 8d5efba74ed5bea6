"""ONNX: `images` float32 [B, C, H, W] in 0..1 -> `output0` float32 [B, N, 5 + nc], checked in ONNX Runtime.

The rows are decoded: centre x, y, width, height in pixels, objectness, class scores. BatchNorm is folded into the
convolutions. The file's metadata names the classes and the largest stride as YOLOv5's exports do.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.int8.onnx import quantised
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.deploy.tensorrt import build_line
from secateur.errors import UserError
from secateur.silence import silenced

INPUT, OUTPUT = "images", "output"
OLDEST_OPSET = 9  # older operators lack what the detectors' upsampling needs


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`.

    Raises:
        UserError: the detector cannot be expressed.
    """
    onnx = importlib.import_module("onnx")
    network, example = source.network(settings).eval(), source.example(settings)
    _trace(network, example, path, settings, _outputs(source, settings))
    graph = onnx.load(str(path))
    version = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if version != settings.opset:
        raise UserError(
            f"PyTorch cannot write this detector with ONNX opset {settings.opset}, it gives {version} instead; "
            "choose that one."
        )
    if settings.simplify:
        with silenced():
            graph = importlib.import_module("onnxslim").slim(graph)
    if settings.precision == "int8":
        with tempfile.TemporaryDirectory() as folder:
            graph = quantised(graph, source.pictures, settings.batch_size, Path(folder), settings.opset)
    onnx.helper.set_model_props(graph, source.metadata(settings).to_text())
    onnx.save(graph, str(path))
    return Written({"opset": version, "nodes": len(graph.graph.node)}, (build_line(graph, settings.precision),))


def check_opset(settings: ExportSettings) -> None:
    """Refuses operators that are too old, or that the installed package does not know.

    Raises:
        UserError: there is no such opset.
    """
    newest = importlib.import_module("onnx").defs.onnx_opset_version()
    if not OLDEST_OPSET <= settings.opset <= newest:
        raise UserError(
            f"There is no ONNX opset {settings.opset} to write; choose one from {OLDEST_OPSET} to {newest} (17 suits "
            "most runtimes)."
        )


def _outputs(source: Source, settings: ExportSettings) -> list[str]:
    """Names of the outputs: one, or one a level of the head."""
    levels = len(source.detector.strides) if settings.output == "raw" else 1
    return [f"{OUTPUT}{number}" for number in range(levels)]


def _trace(network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, outputs: list[str]) -> None:
    """Traces with the TorchScript exporter; what that cannot express goes through torch.export."""
    open_sides = {
        **({0: "batch"} if settings.dynamic else {}),
        **({2: "height", 3: "width"} if settings.any_size else {}),
    }
    axes: dict[str, dict[int, str]] = {INPUT: open_sides} if open_sides else {}
    if settings.dynamic:
        axes |= {name: {0: "batch"} for name in outputs}
    if settings.any_size:
        for name in outputs:
            axes[name] = axes.get(name, {}) | ({2: "ny", 3: "nx"} if settings.output == "raw" else {1: "rows"})
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": outputs, "opset_version": settings.opset}
    with silenced(), torch.no_grad():
        try:
            # Measured: the same graph as the newer exporter's, in a third of the time and without onnxscript.
            torch.onnx.export(network, (example,), str(path), dynamo=False, dynamic_axes=axes or None, **names)
        except Exception as first:  # the exporter raises whatever it met
            shapes = ({0: torch.export.Dim("batch", min=1)},) if settings.dynamic else None
            try:
                if settings.any_size:
                    raise
                torch.onnx.export(
                    network, (example,), str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, **names
                )
            except Exception:
                reason = " ".join(str(first).split())[:300]
                raise UserError(f"This detector cannot be exported to ONNX: {reason}.") from first


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
        check=check_opset,
    )
)
