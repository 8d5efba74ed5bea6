"""Opens files of any runtime as predictors. Each runtime is a `Runtime` of a module in `formats/`, by suffix."""

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
    """What runs files, or folders, of one kind.

    Attributes:
        title: its name in tables, "ONNX Runtime".
        open: file, device, number of threads (0: what the machine grants) and precision -> predictor.
        exported: its files come out of an export; a checkpoint is more than something to run.
    """

    title: str
    open: Callable[[Path, torch.device, int, str], Predictor]
    exported: bool = True


RUNTIMES: Registry[Runtime] = Registry("runtime", "secateur.deploy.formats", __name__)
"""By what the names of their files end in: ".onnx", "_openvino_model"."""


def runtime_of(path: str | Path) -> Runtime:
    """What runs a file or folder, by the end of its name.

    Raises:
        UserError: nothing here does.
    """
    name = Path(path).name.lower()
    ending = next((ending for ending in RUNTIMES if name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"Cannot open {path}: no runtime for this file type; supported are {', '.join(RUNTIMES)}.")
    return RUNTIMES[ending]


def is_exported(path: str | Path) -> bool:
    """Whether a name is that of an exported file, which is something to run and nothing more."""
    name = Path(path).name.lower()
    return any(name.endswith(ending) and runtime.exported for ending, runtime in RUNTIMES.items())


def open_predictor(
    path: str | Path, device: torch.device | str = "cpu", threads: int = 0, precision: str = "fp32"
) -> Predictor:
    """Opens an exported file or a checkpoint.

    Args:
        path: the file or folder.
        device: where it should run; a runtime that has no such device runs it on the CPU and says so.
        threads: threads inside an operator on CPU; 0 takes what the machine grants (`machine.cpu_threads`).
        precision: "fp32", "bf16" or "fp16", for checkpoints; an exported file has its own.

    Raises:
        UserError: the file is missing or broken, or its runtime is not installed.
    """
    return runtime_of(path).open(Path(path), torch.device(device), threads, precision)
