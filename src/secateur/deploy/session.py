"""An exported ONNX file as a callable."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError


class OnnxModel:
    """Runs an ONNX detector with ONNX Runtime.

    Attributes:
        path: the file.
        names: class names by id, as far as the file tells them.
        stride: largest stride; 32 when the file does not tell.
        shape: input shape; None where any size goes.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None, cuda: bool = False) -> None:
        """Opens a file.

        Args:
            path: the ONNX file.
            threads: threads inside an operator; None lets ONNX Runtime choose.
            cuda: run on CUDA where ONNX Runtime has it.

        Raises:
            UserError: ONNX Runtime is not installed, or the file is missing or not a usable ONNX model.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UserError("Running ONNX files needs ONNX Runtime: pip install 'secateur[onnx]'.") from None
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"There is no file {path}.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        wanted = ["CUDAExecutionProvider"] if cuda else []
        providers = [p for p in [*wanted, "CPUExecutionProvider"] if p in onnxruntime.get_available_providers()]
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime has a class of exception for each way to fail
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is not an ONNX model that ONNX Runtime can run: {reason}") from None
        entry = self._session.get_inputs()[0]
        self._input: str = entry.name
        self._output: str = self._session.get_outputs()[0].name
        self.shape = tuple(side if isinstance(side, int) else None for side in entry.shape)
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.names = _names(metadata.get("names", ""))
        self.stride = int(metadata["stride"]) if metadata.get("stride", "").isdecimal() else 32

    def __call__(self, images: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Images float [B, 3, H, W] in 0..1 -> decoded rows float32 [B, N, 5 + nc].

        Raises:
            UserError: the file does not take images of this shape.
        """
        fits = len(self.shape) == images.ndim and all(
            wanted in (None, given) for wanted, given in zip(self.shape, images.shape, strict=True)
        )
        if not fits:
            raise UserError(f"{self.path} takes images of shape {self.shape}, not {images.shape}.")
        feed = {self._input: np.ascontiguousarray(images, dtype=np.float32)}
        result: NDArray[np.float32] = self._session.run([self._output], feed)[0]
        return result

    def call(self, images: NDArray[np.float32]) -> Callable[[], None]:
        """A call that runs the model on these images, for `evaluation.latency`."""

        def run() -> None:
            self(images)

        return run


def _names(text: str) -> dict[int, str]:
    """Class names from the metadata, where they stand as a Python literal; nothing in it is executed."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {}
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    return {int(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
