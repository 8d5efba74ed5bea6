"""LiteRT (TensorFlow Lite): prepared images float32 [B, H, W, C] -> the outputs of the network, with fp32 weights.

The image is channels-last, as phone cameras and bitmaps provide it; feature maps of a head stay channels-first. The
metadata is an associated file as the format defines it: a zip archive appended to the model. XNNPACK runs the network
on the CPU.
"""

from __future__ import annotations

import importlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.metadata import Metadata
from secateur.deploy.predictor import FilePredictor, granted, must_exist, on_cpu, own_precision
from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source, cannot
from secateur.errors import UserError, told
from secateur.pruning.graph import Stored
from secateur.terminal import silenced

METADATA = "metadata.json"
_LARGEST = 10_000_000
"""Maximum bytes of metadata; no list of classes is longer."""
_LARGEST = 10_000_000
"""Maximum bytes of metadata; no list of classes is longer."""


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`.

    Raises:
        UserError: the network cannot be exported.
    """
    network: Any = source.network(settings).eval()
    images = source.example(settings).permute(0, 2, 3, 1).contiguous()
    try:
        with silenced(), torch.no_grad():
            litert_torch = importlib.import_module("litert_torch")
            network = litert_torch.to_channel_last_io(network, args=[0])
            litert_torch.convert(network, (images,)).export(str(path))
    except Exception as error:  # the converter raises exceptions of many types
        raise cannot("LiteRT", error) from error
    metadata = source.metadata(settings)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA, replace(metadata, told={**metadata.told, "input": "NHWC"}).to_json())
    return Written({"input": "NHWC"})


class LiteRTPredictor(FilePredictor):
    """A network in LiteRT's interpreter."""

    def __init__(self, path: Path, device: torch.device, threads: int, precision: str) -> None:
        """Opens a file; see `runtimes.open_predictor`."""
        threads = granted(threads)
        own_precision(path, precision)
        self._interpreter = _open(path, threads)
        metadata = _metadata(path)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        takes = _sides(inputs[0]) if len(inputs) == 1 else ()
        self._last = len(takes) == 4 and takes[3] == metadata.channels
        if self._last:
            takes = (takes[0], takes[3], takes[1], takes[2])
        self._input = int(inputs[0]["index"])
        self._outputs = [int(entry["index"]) for entry in outputs]
        gives = [_sides(entry) for entry in outputs]
        where = on_cpu(path, device, "LiteRT")
        super().__init__(path, metadata, takes=takes, gives=gives, device=where, threads=threads)

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Images float32 [B, C, H, W] in 0..1 -> the outputs."""
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if self._last else images
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _open(path: Path, threads: int) -> Any:
    """An interpreter with its tensors allocated.

    Raises:
        UserError: the file does not exist, or is not a LiteRT model.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            "Cannot run LiteRT files: ai-edge-litert is not installed (pip install ai-edge-litert, or "
            "'secateur[litert]')."
        ) from None
    must_exist(path)
    try:
        content = path.read_bytes()
        with silenced():
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"LiteRT cannot run {path}: {told(error, 200)}") from None
    return interpreter


def _metadata(path: Path) -> Metadata:
    """The metadata in the appended archive; empty if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(METADATA).file_size > _LARGEST:
                return Metadata()
            return Metadata.of_json(archive.read(METADATA))
    except (OSError, KeyError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        return Metadata()


def _sides(detail: Any) -> tuple[int, ...]:
    """The shape of an input or output."""
    return tuple(int(side) for side in detail["shape"])


EXPORTERS.register("litert")(
    Exporter(
        "LiteRT",
        ".tflite",
        ("litert_torch", "ai_edge_litert"),
        "litert",
        write,
        outputs=("decoded", "raw"),
        stored={"fp32": Stored(4, 4, 4)},
    )
)
RUNTIMES.register(".tflite")(Runtime("LiteRT", LiteRTPredictor))
