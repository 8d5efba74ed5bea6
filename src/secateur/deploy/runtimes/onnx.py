"""ONNX Runtime: exports of this package and YOLOv5's own, with decoded rows [B, N, 5 + nc] as the first output."""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.errors import UserError
from secateur.evaluation.nms import non_max_suppression
from secateur.evaluation.settings import PREDICTION, NmsSettings
from secateur.machine import cpu_threads

logger = logging.getLogger("secateur")


class OnnxPredictor:
    """A detector in ONNX Runtime, as `evaluation.predictor.Predictor`.

    Attributes:
        path: the file.
        names, nc: classes, as far as the file tells them; made-up names otherwise.
        strides: the largest stride alone; 32 when the file does not tell.
        image_size: height and width; None where any size goes.
        batch: images of a call; None where any number goes.
        device: CPU, or CUDA where ONNX Runtime has it.
        threads: threads inside an operator on CPU.
    """

    def __init__(
        self, path: str | Path, device: torch.device | None = None, threads: int = 0, precision: str = "fp32"
    ) -> None:
        """Opens a file; see `runtimes.open_predictor`."""
        if precision != "fp32":
            logger.warning("%s runs in the precision that it was exported with, not in %s.", path, precision)
        self.path = Path(path)
        # Left to itself ONNX Runtime starts a thread for each core of the machine, also where one alone is granted.
        self.threads = threads or cpu_threads()
        self._session, self.device = _open(self.path, device or torch.device("cpu"), self.threads)
        entry, rows = self._session.get_inputs()[0], self._session.get_outputs()[0]
        if len(entry.shape) != 4 or len(rows.shape) != 3:
            raise UserError(f"{path} is no detector with decoded rows: it maps {entry.shape} to {rows.shape}.")
        self._input, self._output = str(entry.name), str(rows.name)
        self._dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
        sides = [side if isinstance(side, int) else None for side in entry.shape]
        self.batch = sides[0]
        self.image_size = (sides[2], sides[3]) if sides[2] is not None and sides[3] is not None else None
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        known = _names(metadata.get("names", ""))
        self.nc = rows.shape[2] - 5 if isinstance(rows.shape[2], int) else len(known)
        self.names = {i: known.get(i, f"class{i}") for i in range(self.nc)}
        self.strides = (float(metadata["stride"]) if metadata.get("stride", "").isdecimal() else 32.0,)

    def rows(self, images: Tensor, confidence: float) -> Sequence[Tensor]:
        """Decoded rows of each image with objectness above `confidence`; see `Predictor`.

        Raises:
            UserError: the file does not take images of this size.
        """
        pixels = images.cpu().numpy()
        count = self.batch or len(pixels)
        found = []
        for start in range(0, len(pixels), count):
            part = pixels[start : start + count]
            if len(part) < count:
                part = np.concatenate((part, np.zeros((count - len(part), *part.shape[1:]), part.dtype)))
            found += list(torch.from_numpy(self.run(part).astype(np.float32, copy=False)))
        return [rows[rows[:, 4] > confidence] for rows in found[: len(pixels)]]

    def predict(self, images: Tensor, settings: NmsSettings = PREDICTION) -> list[Tensor]:
        """Boxes of each image; see `Predictor`."""
        return non_max_suppression(self.rows(images, settings.conf), settings)

    def run(self, images: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Images float [B, C, H, W] in 0..1 -> all decoded rows [B, N, 5 + nc].

        Raises:
            UserError: the file does not take images of this shape.
        """
        shape = self._session.get_inputs()[0].shape
        if len(shape) != images.ndim or any(
            isinstance(side, int) and side != given for side, given in zip(shape, images.shape, strict=True)
        ):
            raise UserError(f"{self.path} takes images of shape {_sides(shape)}, not {_sides(images.shape)}.")
        feed = {self._input: np.ascontiguousarray(images, dtype=self._dtype)}
        result: NDArray[np.floating[Any]] = self._session.run([self._output], feed)[0]
        return result


def _open(path: Path, device: torch.device, threads: int) -> tuple[Any, torch.device]:
    """A session of ONNX Runtime, and where it really runs."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("Running ONNX files needs ONNX Runtime: pip install 'secateur[onnx]'.") from None
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait in a loop for the next call would take the cores from whoever computes in between.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    elif device.type != "cpu":
        logger.warning("This ONNX Runtime has no %s: running %s on the CPU.", device.type, path)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime has a class of exception for each way to fail
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not an ONNX model that ONNX Runtime can run: {reason}") from None
    return session, device if session.get_providers()[0] == "CUDAExecutionProvider" else torch.device("cpu")


def _names(text: str) -> dict[int, str]:
    """Class names from the metadata, where they stand as a Python literal; nothing in it is executed."""
    try:
        value = ast.literal_eval(text)
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        return {int(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return {}


def _sides(shape: Sequence[int | str | None]) -> str:
    """1 x 3 x 640 x 640; names stand for sides that are open."""
    return " x ".join(str(side) for side in shape)


RUNTIMES.register(".onnx")(Runtime("ONNX Runtime", OnnxPredictor))
