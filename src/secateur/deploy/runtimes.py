"""Opens files of any runtime as predictors. Each runtime is a `Runtime` in a module of `formats/`, by file ending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.registry import Registry


@dataclass(frozen=True)
class Runtime:
    """A runtime for one kind of files or folders.

    Attributes:
        title: display name, "ONNX Runtime".
        open: file, device, number of threads (0: the CPUs granted) and precision -> predictor.
        exported: whether its files are exports; a checkpoint can also be trained and cut.
    """

    title: str
    open: Callable[[Path, torch.device, int, str], Predictor]
    exported: bool = True


RUNTIMES: Registry[Runtime] = Registry("runtime", "secateur.deploy.formats", __name__)
"""Runtimes by the end of file names: ".onnx", "_openvino_model"."""


def runtime_of(path: str | Path) -> Runtime:
    """The runtime for a file or folder, by the end of its name.

    Raises:
        UserError: there is none.
    """
    name = Path(path).name.lower()
    ending = next((ending for ending in RUNTIMES if name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"Cannot open {path}: no runtime for this file type. Supported: {', '.join(RUNTIMES)}.")
    return RUNTIMES[ending]


def is_exported(path: str | Path) -> bool:
    """Whether a name is that of an exported file, which can run but cannot be trained or cut."""
    name = Path(path).name.lower()
    return any(name.endswith(ending) and runtime.exported for ending, runtime in RUNTIMES.items())


def open_predictor(
    path: str | Path, device: torch.device | str = "cpu", threads: int = 0, precision: str = "fp32"
) -> Predictor:
    """Opens an exported file or a checkpoint.

    Args:
        path: the file or folder.
        device: device to run on. A runtime without this device runs on the CPU and logs a notice.
        threads: threads within an operator on the CPU; 0 uses the CPUs granted (`machine.cpu_threads`).
        precision: "fp32", "bf16" or "fp16", for checkpoints; exported files have a fixed precision.

    Raises:
        UserError: the file is missing or invalid, or its runtime is not installed.
    """
    return runtime_of(path).open(Path(path), torch.device(device), threads, precision)
