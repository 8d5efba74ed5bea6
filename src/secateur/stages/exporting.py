"""The verb that writes files for other runtimes, each checked against the detector it came from."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from secateur.deploy.onnx import export_onnx, random_input
from secateur.deploy.session import OnnxModel
from secateur.detector.checkpoint import Checkpoint


def has_onnx() -> bool:
    """Whether the `onnx` extra is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxslim", "onnxruntime"))


def export_checked(checkpoint: Checkpoint, path: Path, image_size: int, **options: Any) -> dict[str, Any]:
    """Writes an ONNX file, runs it beside the detector, and describes it.

    Raises:
        UserError: the extra is missing, or the file gives other outputs than the detector.
    """
    result = export_onnx(checkpoint.detector(), path, image_size, **options)
    return {
        "file": path.name,
        "max_error": result.max_error,
        "size": list(result.size),
        "batch": result.batch,
        "opset": result.opset,
        "nodes": result.nodes,
        "file_mb": result.file_mb,
    }


def session_calls(
    checkpoints: Mapping[str, Checkpoint], image_size: int, threads: int = 0
) -> dict[str, Callable[[], Any]]:
    """Calls that run each checkpoint once in ONNX Runtime, batch 1; {} when the `onnx` extra is not installed."""
    if not has_onnx():
        return {}
    calls: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, checkpoint) in enumerate(checkpoints.items()):
            file = Path(folder) / f"{number}.onnx"
            export_onnx(checkpoint.detector(), file, image_size)
            model = OnnxModel(file, threads=threads or None)
            calls[name] = partial(model, random_input((model.shape[2] or image_size, model.shape[3] or image_size)))
    return calls
