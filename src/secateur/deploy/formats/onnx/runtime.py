"""ONNX Runtime: exports of this package and YOLOv5's own, with decoded rows [B, N, 5 + nc] as the first output."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.deploy.metadata import Metadata
from secateur.deploy.predictor import FilePredictor, granted, must_exist, own_precision
from secateur.errors import UserError, told
from secateur.terminal import without_telemetry

logger = logging.getLogger("secateur")


class OnnxPredictor(FilePredictor):
    """A network in ONNX Runtime, on the CPU, or on CUDA if ONNX Runtime supports it."""

    def __init__(self, path: Path, device: torch.device, threads: int, precision: str) -> None:
        """Opens a file; see `runtimes.open_predictor`."""
        threads = granted(threads)
        own_precision(path, precision)
        self._session, where = _open(path, device, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            what = f"{len(inputs)} inputs" if inputs else "no images"
            raise UserError(f"{path} is not a network for images: it takes {what}. Expected one input of images.")
        self._input = str(inputs[0].name)
        self._dtype = np.float16 if inputs[0].type == "tensor(float16)" else np.float32
        metadata = Metadata.read(self._session.get_modelmeta().custom_metadata_map)
        self._outputs = [str(entry.name) for entry in outputs]
        super().__init__(
            path,
            metadata,
            takes=_shape(inputs[0].shape),
            gives=[_shape(entry.shape) for entry in outputs],
            device=where,
            threads=threads,
        )

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Images float32 [B, C, H, W] in 0..1 -> the outputs."""
        feed = {self._input: images.astype(self._dtype, copy=False)}
        found: list[NDArray[Any]] = self._session.run(self._outputs[: self.used], feed)
        return found


def _open(path: Path, device: torch.device, threads: int) -> tuple[Any, torch.device]:
    """A session of ONNX Runtime, and the device that it actually uses."""
    try:
        with without_telemetry():
            import onnxruntime
    except ImportError:
        raise UserError(
            "Cannot run ONNX files: ONNX Runtime is not installed (pip install 'secateur[onnx]')."
        ) from None
    must_exist(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Disable spinning: threads that wait actively for the next call would block cores for other computations.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    elif device.type != "cpu":
        logger.warning("ONNX Runtime has no %s on this machine: running %s on the CPU.", device.type, path)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime has one exception class per failure
        raise UserError(f"ONNX Runtime cannot run {path}: {told(error, 200)}") from None
    return session, device if session.get_providers()[0] == "CUDAExecutionProvider" else torch.device("cpu")


def _shape(sides: list[int | str | None]) -> tuple[int | None, ...]:
    """The shape with None for dynamic (named) dimensions."""
    return tuple(side if isinstance(side, int) else None for side in sides)
