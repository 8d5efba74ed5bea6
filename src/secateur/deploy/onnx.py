"""Export of a detector to ONNX, checked in ONNX Runtime before the file gets its name."""

from __future__ import annotations

import copy
import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.deploy.session import OnnxModel
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.evaluation.validate import check_image_size
from secateur.files import atomic_write

INPUT, OUTPUT = "images", "output0"
TOLERANCE = 1e-3


@dataclass(frozen=True)
class OnnxExport:
    """An exported file.

    Attributes:
        path: the file.
        max_error: largest difference between ONNX Runtime and the detector, see `output_error`.
        size: height and width of the input in pixels.
        batch: images of the input; 0 when any number is accepted.
        opset: version of ONNX' operators.
        nodes: operators in the graph.
        file_mb: size of the file in megabytes (10^6 bytes).
    """

    path: Path
    max_error: float
    size: tuple[int, int]
    batch: int
    opset: int
    nodes: int
    file_mb: float


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

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        for parent in list(detector.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ZeroPad2d):
                    setattr(parent, name, _ZeroBorder(child.padding))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in 0..1 -> [B, N, 5 + nc]."""
        return self.detector.predict(images)


def export_onnx(
    detector: Detector,
    path: str | Path,
    image_size: int | tuple[int, int] = 640,
    *,
    batch: int = 1,
    dynamic: bool = False,
    opset: int = 17,
    simplify: bool = True,
) -> OnnxExport:
    """Writes a detector as ONNX: `images` float32 [B, 3, H, W] in 0..1 -> `output0` float32 [B, N, 5 + nc].

    The output rows are decoded: centre x, y, width, height in pixels, objectness, class scores. BatchNorm is folded
    into the convolutions. The file's metadata names the classes and the largest stride as YOLOv5's exports do. The
    file appears only when ONNX Runtime gives the detector's outputs with it.

    Args:
        detector: any device, training or not; it is left as it is.
        path: the file to write.
        image_size: side, or height and width, of the input in pixels; rounded up to multiples of the largest stride.
        batch: images of the input.
        dynamic: accept any number of images instead.
        opset: version of ONNX' operators.
        simplify: fold constants and drop needless operators (onnxslim).

    Raises:
        UserError: the extra is not installed, the export or the check fails, or the file cannot be written.
    """
    onnx = _require("onnx")
    if batch < 1:
        raise UserError(f"The batch of an export must be at least 1, not {batch}.")
    stride = int(max(detector.strides))
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = check_image_size(height, stride), check_image_size(width, stride)
    original = copy.deepcopy(detector).cpu().float().eval()
    example = torch.zeros(batch, detector.topology.channels, *size)
    with atomic_write(path) as temporary:
        _export(_Decoded(original.fused()), example, temporary, opset, dynamic)
        graph = onnx.load(str(temporary))
        if simplify:
            graph = _require("onnxslim").slim(graph)
        _describe(graph, detector, size, onnx)
        onnx.save(graph, str(temporary))
        error = output_error(original, OnnxModel(temporary), _probes((3 if dynamic else batch), *example.shape[1:]))
        if not error <= TOLERANCE:
            raise UserError(
                f"ONNX Runtime differs from the detector by {error:.2g} (allowed: {TOLERANCE:g}), so {path} was not "
                "written; try another opset or simplify=False."
            )
        megabytes = temporary.stat().st_size / 1e6
    version = next((entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")), opset)
    return OnnxExport(Path(path), error, size, 0 if dynamic else batch, version, len(graph.graph.node), megabytes)


def output_error(detector: Detector, model: OnnxModel, probes: list[Tensor]) -> float:
    """The largest difference of decoded outputs: absolute for scores, relative to max(1 px, |value|) for boxes.

    Args:
        detector: in evaluation mode, on CPU.
        model: the exported file.
        probes: inputs [B, 3, H, W] in 0..1.
    """
    worst = 0.0
    for images in probes:
        with torch.inference_mode():
            expected = detector.predict(images).double().numpy()
        found = model(images.numpy()).astype(np.float64)
        if found.shape != expected.shape:
            return float("inf")
        scale = np.ones_like(expected)
        scale[..., :4] = np.maximum(1, np.abs(expected[..., :4]))
        difference = np.abs(found - expected) / scale
        # A NaN would hide from max().
        worst = max(worst, float(difference.max(initial=0)) if np.isfinite(difference).all() else float("inf"))
    return worst


def _export(network: nn.Module, example: Tensor, path: Path, opset: int, dynamic: bool) -> None:
    """Traces with the TorchScript exporter; what that cannot express goes through torch.export."""
    axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if dynamic else None
    options: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT], "opset_version": opset}
    with _quiet(), torch.no_grad():
        try:
            # Measured: the same graph as the newer exporter's, in a third of the time and without onnxscript.
            torch.onnx.export(network, (example,), str(path), dynamo=False, dynamic_axes=axes, **options)
        except Exception as first:  # the exporter raises whatever it met
            shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
            try:
                torch.onnx.export(
                    network, (example,), str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, **options
                )
            except Exception as second:
                reason = " ".join(str(second).split())[:300]
                raise UserError(f"This detector cannot be exported to ONNX: {reason}.") from first


def _describe(graph: Any, detector: Detector, size: tuple[int, int], onnx: Any) -> None:
    """Puts names, stride and sizes into the file as text, in the form that readers of YOLOv5's exports expect."""
    onnx.helper.set_model_props(
        graph,
        {
            "names": str({int(i): str(name) for i, name in detector.names.items()}),
            "stride": str(int(max(detector.strides))),
            "nc": str(detector.nc),
            "imgsz": str(list(size)),
        },
    )


def _probes(batch: int, channels: int, height: int, width: int) -> list[Tensor]:
    """Two inputs of noise and one of shapes and gradients."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(batch, channels, height, width, generator=generator) for _ in range(2)]
    picture = torch.linspace(0, 1, width).expand(batch, channels, height, width).clone()
    picture[:, 0, height // 4 : height // 2, width // 4 : width // 2] = 1
    picture[:, -1, height // 2 :, width // 3 :] *= torch.linspace(1, 0, height - height // 2)[:, None]
    return [*noise, picture]


def _require(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"ONNX export needs the package {name}: pip install 'secateur[onnx]'.") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' warnings about themselves; errors still come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def random_input(size: tuple[int, int], batch: int = 1, channels: int = 3) -> NDArray[np.float32]:
    """Noise [B, C, H, W] float32 in 0..1, the same every time, for measuring latency."""
    return np.random.default_rng(0).random((batch, channels, *size), dtype=np.float32)
