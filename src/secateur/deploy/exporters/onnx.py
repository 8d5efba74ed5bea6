"""ONNX: `images` float32 [B, C, H, W] in 0..1 -> `output0` float32 [B, N, 5 + nc], checked in ONNX Runtime.

The rows are decoded: centre x, y, width, height in pixels, objectness, class scores. BatchNorm is folded into the
convolutions. The file's metadata names the classes and the largest stride as YOLOv5's exports do.
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.deploy.check import check_outputs, output_error, probes
from secateur.deploy.exporters import EXPORTERS, Exported, Exporter
from secateur.deploy.runtimes.onnx import OnnxPredictor
from secateur.deploy.settings import ExportSettings
from secateur.detector.architecture import DetectionNetwork
from secateur.errors import UserError
from secateur.files import atomic_write
from secateur.silence import silenced

INPUT, OUTPUT = "images", "output0"
OLDEST_OPSET = 9  # older operators lack what the detectors' upsampling needs


class _ZeroBorder(nn.Module):
    """Zero padding by concatenation.

    ONNX Runtime's optimiser fuses Pad into a MaxPool behind it, whose border is minus infinity and not zero, and so
    changes what comes out (seen with 1.31 on yolov3-tiny); it does not fuse a Concat.
    """

    def __init__(self, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.left, self.right, self.top, self.bottom = padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, top + H + bottom, left + W + right]."""
        column = torch.zeros_like(x[..., :1])
        x = torch.cat((*(column,) * self.left, x, *(column,) * self.right), dim=3)
        row = torch.zeros_like(x[..., :1, :])
        return torch.cat((*(row,) * self.top, x, *(row,) * self.bottom), dim=2)


class _Decoded(nn.Module):
    """A detector, changed for this purpose, whose forward gives decoded rows."""

    def __init__(self, detector: DetectionNetwork) -> None:
        super().__init__()
        self.detector = detector
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ZeroPad2d):
                    setattr(parent, name, _ZeroBorder(child.padding))

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] in 0..1 -> [B, N, 5 + nc]."""
        return self.detector.predict(images)


def write(network: DetectionNetwork, path: Path, size: tuple[int, int], settings: ExportSettings) -> Exported:
    """Writes and checks the file; see `export`."""
    original = copy.deepcopy(network).cpu().float().eval()  # type: ignore[attr-defined]
    channels = original.example_inputs()[0].shape[1]
    with atomic_write(path) as temporary:
        version, nodes = write_unchecked(original, temporary, size, settings)
        images = probes(3 if settings.dynamic else settings.batch_size, channels, size)
        error = output_error(original, OnnxPredictor(temporary).run, images)
        check_outputs(error, "ONNX Runtime", path, "try another opset, or leave the graph unsimplified")
        megabytes = temporary.stat().st_size / 1e6
    details = {"opset": version, "nodes": nodes}
    return Exported(path, error, size, 0 if settings.dynamic else settings.batch_size, megabytes, details)


def write_unchecked(
    network: DetectionNetwork, path: Path, size: tuple[int, int], settings: ExportSettings
) -> tuple[int, int]:
    """Writes the file without running it, for timing: that takes a fraction of the time. Gives opset and nodes.

    Raises:
        UserError: there is no such opset, or the detector cannot be expressed.
    """
    onnx = importlib.import_module("onnx")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= settings.opset <= newest:
        raise UserError(
            f"There is no ONNX opset {settings.opset} to write; choose one from {OLDEST_OPSET} to {newest} (17 suits "
            "most runtimes)."
        )
    assert isinstance(network, nn.Module)
    original = copy.deepcopy(network).cpu().float().eval()
    channels = original.example_inputs()[0].shape[1]
    _trace(_Decoded(original.fused()), torch.zeros(settings.batch_size, channels, *size), path, settings)
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
    _describe(graph, network, size, onnx)
    onnx.save(graph, str(path))
    return version, len(graph.graph.node)


def _trace(network: nn.Module, example: Tensor, path: Path, settings: ExportSettings) -> None:
    """Traces with the TorchScript exporter; what that cannot express goes through torch.export."""
    axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if settings.dynamic else None
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT], "opset_version": settings.opset}
    with silenced(), torch.no_grad():
        try:
            # Measured: the same graph as the newer exporter's, in a third of the time and without onnxscript.
            torch.onnx.export(network, (example,), str(path), dynamo=False, dynamic_axes=axes, **names)
        except Exception as first:  # the exporter raises whatever it met
            shapes = ({0: torch.export.Dim("batch", min=1)},) if settings.dynamic else None
            try:
                torch.onnx.export(
                    network, (example,), str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, **names
                )
            except Exception:
                reason = " ".join(str(first).split())[:300]
                raise UserError(f"This detector cannot be exported to ONNX: {reason}.") from first


def _describe(graph: Any, network: DetectionNetwork, size: tuple[int, int], onnx: Any) -> None:
    """Puts names, stride and sizes into the file as text, in the form that readers of YOLOv5's exports expect."""
    onnx.helper.set_model_props(
        graph,
        {
            "names": str({int(i): str(name) for i, name in network.names.items()}),
            "stride": str(int(max(network.strides))),
            "nc": str(network.nc),
            "imgsz": str(list(size)),
        },
    )


EXPORTERS.register("onnx")(Exporter("ONNX", ".onnx", ("onnx", "onnxslim", "onnxruntime"), "onnx", write))
